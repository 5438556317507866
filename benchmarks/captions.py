"""``hnc-ds generate`` on random graphs as dense as GQA's, with one worker and with two."""

from dataclasses import replace
from pathlib import Path

from benchmarks.graphs import OBJECTS, OTHER_RELATIONS, SIDE_PAIRS, write_graphs
from benchmarks.timing import Check, Comparison, alternate
from hnc_ds.captions.generate import generate
from hnc_ds.config import GenerateConfig

ONE, TWO = "hnc_ds: 1 worker", "hnc_ds: 2 workers"


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of the whole stage, from the JSON of the graphs to the compressed captions."""
    images = 40 if quick else 3000
    config = GenerateConfig(
        scene_graphs=write_graphs(folder / "random_sceneGraphs.json", images, seed=0),
        out=folder / "one.jsonl.gz",
        workers=1,
        overwrite=True,
    )
    parallel = replace(config, out=folder / "two.jsonl.gz", workers=2)
    ways = {ONE: lambda: generate(config), TWO: lambda: generate(parallel)}
    timings = alternate(ways, rounds=1 if quick else 3)
    differs = config.out.read_bytes() != parallel.out.read_bytes()
    return Comparison(
        clock="wall",
        baseline=ONE,
        timings=timings,
        checks=(Check("files that differ between 1 and 2 workers", int(differs), 0),),
        notes=(
            f"{images} random graphs of {OBJECTS} objects and "
            f"{2 * SIDE_PAIRS + OTHER_RELATIONS} relations, all negative types; start of the "
            "worker processes included.",
            "No peer: the published HNC generator needs tables counted over GQA and a tagger's "
            "model, and is therefore not run.",
        ),
        items="images",
        count=images,
    )
