"""Judges the captions of many images, and prints how many labels are right, and which are not.

    python -m tests.captions.worlds.judge_many 2000                    # drawn worlds
    python -m tests.captions.worlds.judge_many 500 --graphs            # graphs of speed/
    python -m tests.captions.worlds.judge_many 0 --graphs FILE...      # of files, all of them

Exits with 1 if a label is wrong or a caption cannot be read. By worlds every label is proven right
or it is wrong; by graphs (by_graph.py) some remain unproven, which are counted and shown.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import Tables, count_tables
from hnc_ds.records import CaptionGroup, SceneGraph
from speed.graphs import write_graphs
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.by_graph import Finding, GraphJudge, Label, grammar_of
from tests.captions.worlds.by_world import WorldJudge
from tests.captions.worlds.captions_of import captions_of
from tests.captions.worlds.drawing import draw_world

MOST = 150
"""Groups of an image: more than are usually written, so that more is judged."""
SHOWN = 6
"""Captions that are printed for each reason."""


def ways_of(tables: Tables | None) -> dict[str, Options]:
    """How captions are made. Open-world negatives are not proven and so not judged."""
    return {
        "over the data": Options(max_groups=MOST, balance="data"),
        "in the image": Options(max_groups=MOST),
        "with tables": Options(max_groups=MOST, tables=tables),
    }


def of_worlds(count: int, seed: int) -> Iterator[tuple[str, Finding]]:
    """Findings about drawn worlds: (way, finding)."""
    rng = random.Random(seed)
    worlds = [draw_world(rng) for _ in range(count)]
    graphs = [annotate(rng, world, str(number)) for number, world in enumerate(worlds)]
    for way, options in ways_of(count_tables(graphs)).items():
        types = tuple(NEGATIVE_TYPES) if way == "in the image" else DEFAULT_TYPES
        for world, graph in zip(worlds, graphs, strict=True):
            judge = WorldJudge(world)
            for group in captions_of(graph, types, options, seed):
                yield from ((way, finding) for finding in findings_of(judge, group))


def of_graphs(graphs: list[SceneGraph], seed: int) -> Iterator[tuple[str, Finding]]:
    """Findings about graphs that no world is known of: (way, finding)."""
    grammar = grammar_of(graphs)
    for way, options in ways_of(count_tables(graphs)).items():
        for graph in graphs:
            judge = GraphJudge(graph, grammar)
            for group in captions_of(graph, DEFAULT_TYPES, options, seed):
                yield from ((way, finding) for finding in findings_of(judge, group))


def findings_of(judge: WorldJudge | GraphJudge, group: CaptionGroup) -> list[Finding]:
    """Those of a group; if one of its captions cannot be read, that alone."""
    try:
        return [*judge.findings(group)]
    except AssertionError as error:
        return [Finding(Label.WRONG, group.positive, True, group.type, f"cannot be read: {error}")]


def report(found: Iterable[tuple[str, Finding]]) -> int:
    """Print what was found; the number of labels that are wrong."""
    start = time.monotonic()
    counts: Counter[tuple[str, Label]] = Counter()
    by_type: Counter[tuple[str, Label]] = Counter()
    shown: Counter[tuple[Label, str, str]] = Counter()
    for way, finding in found:
        label = finding.label
        counts[way, label] += not finding.is_true
        by_type["positives" if finding.is_true else finding.type, label] += 1
        reason = (label, finding.type, finding.why)
        shown[reason] += 1
        if label is not Label.RIGHT and shown[reason] <= SHOWN:
            said = "true" if finding.is_true else f"false of {finding.positive!r}"
            print(f"{label.value}: {finding.caption!r} ({finding.type}, {said}): {finding.why}")
    _table(by_type)
    _table(counts)
    pairs = sum(counts.values())
    print(f"{pairs:,} pairs in {time.monotonic() - start:.0f} s")
    return sum(count for (_, label), count in by_type.items() if label is Label.WRONG)


def _table(counts: Counter[tuple[str, Label]]) -> None:
    print(f"{'':24}" + "".join(f"{label.value:>10}" for label in Label))
    for name in sorted({name for name, _ in counts}):
        print(f"{name:24}" + "".join(f"{counts[name, label]:10,}" for label in Label))


def _read(paths: list[Path], count: int, seed: int) -> list[SceneGraph]:
    if paths:
        return [graph for path in paths for graph in read_scene_graphs(path)][: count or None]
    with tempfile.TemporaryDirectory() as folder:
        path = write_graphs(Path(folder) / "drawn_sceneGraphs.json", count, seed)
        return [*read_scene_graphs(path)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=int, help="how many; 0: all of the files")
    parser.add_argument("--graphs", nargs="*", type=Path, help="by graph, not by world")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.graphs is None:
        wrong = report(of_worlds(args.images, args.seed))
    else:
        wrong = report(of_graphs(_read(args.graphs, args.images, args.seed), args.seed))
    print(f"{wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
