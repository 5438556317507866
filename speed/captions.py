"""``hnc-ds generate`` on random graphs as dense as GQA's: speed, memory, always the same bytes; how
much of the images its captions cover, and how far text alone separates true from false.

Other graphs for each, so that what is audited was not looked at before.
"""

import gzip
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import msgspec

from hnc_ds.captions.audit import (
    BASELINES,
    OVERALL_LIMITS,
    TYPE_LIMITS,
    Audit,
    Score,
    audit,
    table,
)
from hnc_ds.captions.balance import Quotas
from hnc_ds.captions.caption_stats import read_counts
from hnc_ds.captions.captions_file import CHUNK_IMAGES, COMPRESSION, no_garbage_collection
from hnc_ds.captions.coverage import Coverage, common, coverage_lines
from hnc_ds.captions.first_pass import tally_of
from hnc_ds.captions.formats.json_members import members
from hnc_ds.captions.formats.scene_graphs import decode_scene_graph
from hnc_ds.captions.generate import generate
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.config import GenerateConfig
from speed.graphs import write_graphs
from speed.memory import peak_mebibytes
from speed.timing import Check, Comparison, Table, alternate

ONE, TWO = "hnc_ds: 1 worker", "hnc_ds: 2 workers"
SAME_BYTES = ((1, "0"), (2, "1"), (4, "77"))
"""(workers, PYTHONHASHSEED) of the runs that must write the same."""
MEMORY_GROWTH = 64
"""MiB that a larger file may take more: the ids of its images, rows of the counts, and chance."""
AUDITED_IMAGES = 20_000
PAIRS, SIDES_SHARE, PREDICATES = 60, 0.5, 25
"""Aims: pairs an image at least; left and right of the negatives that state a relation at most;
other predicates with 1 % of the others each at least."""

OPTIONS = Options(max_groups=GenerateConfig.per_image, balance="data")
"""As the command has them."""

_Found = TypeVar("_Found")


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of the whole stage, from the JSON of the graphs to the compressed captions."""
    images = 40 if quick else 4000
    graphs = write_graphs(folder / "random_sceneGraphs.json", images, seed=0)
    config = GenerateConfig(
        scene_graphs=graphs, out=folder / "one.jsonl.gz", workers=1, overwrite=True
    )
    parallel = replace(config, out=folder / "two.jsonl.gz", workers=2)
    variants = {ONE: lambda: generate(config), TWO: lambda: generate(parallel)}
    timings = alternate(variants, rounds=1 if quick else 3)
    memory, memory_facts = _memory(folder, quick)
    counts, found = _audited(folder, quick)
    return Comparison(
        clock="wall",
        baseline=ONE,
        timings=timings,
        checks=(
            Check(
                "files that differ between 1 and 2 workers",
                len({_sha256(config.out), _sha256(parallel.out)}) - 1,
                0,
            ),
            Check(
                "files that differ between 1, 2 and 4 workers, each with a PYTHONHASHSEED of its "
                "own",
                _different_files(folder, quick) - 1,
                0,
            ),
            memory,
            # Of a few graphs neither is known.
            *(() if quick else (*_coverage_checks(counts), *_audit_checks(found))),
        ),
        notes=(
            f"{images:,} random graphs, {_density(graphs)}, {len(DEFAULT_TYPES)} negative types; "
            "start of the worker processes included.",
            _stages(graphs, 40 if quick else 1000),
            memory_facts,
            f"Coverage, on {found.overall.images:,} other graphs: {_coverage(counts)}",
            "No peer: the published HNC generator needs tables counted over GQA and a tagger's "
            "model, and is therefore not run.",
        ),
        items="images",
        count=images,
        tables=(_accuracies(found),),
    )


def _audited(folder: Path, quick: bool) -> tuple[Coverage, Audit]:
    """Coverage of captions of held-out graphs, and accuracy of text-only classifiers."""
    images = 40 if quick else AUDITED_IMAGES
    graphs = write_graphs(folder / "audited_sceneGraphs.json", images, seed=4)
    out = folder / "audited.jsonl.gz"
    generate(GenerateConfig(scene_graphs=graphs, out=out))
    graphs.unlink()
    found = audit(out, images, seed=0)
    print(table(found), file=sys.__stderr__)  # with the words that recorder, for whoever watches
    return read_counts(out).coverage, found


def _coverage_checks(found: Coverage) -> tuple[Check, ...]:
    pairs = sum(number * images for number, images in found.pairs.items()) / found.images
    sided = sum(found.predicates.get(name, 0) for name in SIDES)
    return (
        Check(f"pairs an image, short of {PAIRS}", max(0.0, PAIRS - pairs), 0),
        Check(
            "left and right, share of the negatives that state a relation",
            sided / sum(found.predicates.values()),
            SIDES_SHARE,
        ),
        Check(
            f"other predicates with 1 % of the others' negatives each, short of {PREDICATES}",
            max(0, PREDICATES - len(common(_others(found)))),
            0,
        ),
    )


def _others(found: Coverage) -> dict[str, int]:
    """Negatives by predicate, without left and right."""
    return {name: count for name, count in found.predicates.items() if name not in SIDES}


def _coverage(found: Coverage) -> str:
    """The figures of ``hnc-ds generate``, in a line."""
    figures = list(takewhile(bool, coverage_lines(found)))
    return "; ".join(" ".join(line.split()) for line in figures) + "."


def _audit_checks(found: Audit) -> tuple[Check, ...]:
    """The largest of the accuracies that have a limit."""
    worst = {
        reader: max(score.accuracy[reader] or 0.0 for score in found.types.values() if score.judged)
        for reader in TYPE_LIMITS
    }
    return (
        *(
            Check(f"text-only, {reader}: all types", found.overall.accuracy[reader] or 0.0, most)
            for reader, most in OVERALL_LIMITS.items()
        ),
        *(
            Check(f"text-only, {reader}: the worst type", worst[reader], most)
            for reader, most in TYPE_LIMITS.items()
        ),
    )


def _accuracies(found: Audit) -> Table:
    """The audit's table, without types that only one image has."""

    def row(score: Score) -> tuple[float, ...]:
        accuracies = [score.accuracy[reader] for reader in BASELINES]
        return (*(one for one in accuracies if one is not None), score.pairs)

    scores = {"all": found.overall, **found.types}
    return Table(
        "Text alone: share of pairs classified correctly",
        (*BASELINES, "pairs"),
        {name: row(score) for name, score in scores.items() if score.images > 1},
    )


def _command(graphs: Path, out: Path, workers: int) -> list[str]:
    paths = ["--scene-graphs", str(graphs), "--out", str(out)]
    return [sys.executable, "-m", "hnc_ds.cli", "generate", *paths, "--workers", str(workers)]


def _different_files(folder: Path, quick: bool) -> int:
    """How many different files several runs of the command write: one, if all is well."""
    graphs = write_graphs(folder / "same_sceneGraphs.json", 40 if quick else 1000, seed=2)
    found = set()
    for workers, seed in SAME_BYTES:
        out = folder / f"same-{workers}.jsonl.gz"
        command = _command(graphs, out, workers)
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        found.add(_sha256(out))
    return len(found)


def _memory(folder: Path, quick: bool) -> tuple[Check, str]:
    """Peak memory on a large file, and how much more that is than on a part of it."""
    small, large = (1, 1.5) if quick else (40, 400)  # in less, workers do not reach their peak
    peaks, images = [], 0
    for size in (small, large):
        graphs = _file_of(folder / "large_sceneGraphs.json", size * 10**6)
        out = folder / f"large-{size}.jsonl.gz"
        peaks.append(peak_mebibytes(_command(graphs, out, workers=2)))
        images = sum(1 for _ in members(graphs))
        graphs.unlink()
    grown = Check(
        f"MiB of memory for {large} MB of graphs beyond those for {small} MB",
        peaks[1] - peaks[0],
        MEMORY_GROWTH,
    )
    note = (
        f"Peak memory of the command and its 2 workers on a file of {large} MB ({images:,} "
        f"images): {peaks[1]:.0f} MiB, on one of {small} MB {peaks[0]:.0f} MiB; pages shared by "
        "processes are counted in each."
    )
    return grown, note


def _file_of(path: Path, size: float) -> Path:
    """Graphs of so many bytes; 500 different ones."""
    sample = write_graphs(path, 100, seed=3).stat().st_size / 100
    return write_graphs(path, max(1, round(size / sample)), seed=3, different=500)


def _density(graphs: Path) -> str:
    found = [decode_scene_graph(graphs, m, Counter()) for m in members(graphs)]
    objects = [one for graph in found for one in graph.objects.values()]
    per_image = {
        "objects": len(objects),
        "attributes": sum(len(one.attributes) for one in objects),
        "relations": sum(len(one.relations) for one in objects),
    }
    return ", ".join(f"{count / len(found):.1f} {what}" for what, count in per_image.items())


def _stages(path: Path, images: int) -> str:
    """CPU time of each step, in this process and without its workers."""
    spent: dict[str, float] = {}

    def step(name: str, work: Callable[[], _Found]) -> _Found:
        start = time.process_time()
        found = work()
        spent[name] = (time.process_time() - start) / images * 1000
        return found

    with no_garbage_collection():  # as the stage does it
        cut = step("cut", lambda: [m for m, _ in zip(members(path), range(images), strict=False)])
        graphs = step("decode", lambda: [decode_scene_graph(path, m, Counter()) for m in cut])
        tally = step("count", lambda: tally_of(graphs, DEFAULT_TYPES, 0, OPTIONS))
        quotas = Quotas(tally.balance())
        made = step(
            "generate",
            lambda: [caption_groups(g, DEFAULT_TYPES, 0, OPTIONS, quotas) for g in graphs],
        )
        lines = step("encode", lambda: [msgspec.json.encode(captions) + b"\n" for captions in made])
        chunks = [lines[at : at + CHUNK_IMAGES] for at in range(0, images, CHUNK_IMAGES)]
        step("compress", lambda: [gzip.compress(b"".join(c), COMPRESSION, mtime=0) for c in chunks])
    times = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in spent.items())
    return (
        f"CPU time of an image, in ms: {times}. The first is done by one process for all workers."
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
