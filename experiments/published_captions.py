"""Captions of the published HNC generator beside ours, of the same scene graphs.

    git clone https://github.com/DigitalPhonetics/hard-negative-captions
    pip install inflect
    python experiments/published_captions.py hard-negative-captions val_sceneGraphs.json

Runs their code unchanged on a copy of the checkout. Three things are not in it and are made here:
the count tables that are absent from the repository (obj2predicate2obj, pred_obj_to_subj_counts,
subj_obj_to_pred_counts, subj_pred_to_obj_counts) are counted over the scene graphs; the part-of-
speech tagger, which tells plural nouns, is our list of plurals; and the seed of numpy is set, so
that a run can be repeated. Every caption of both is read back from its text and judged by its
graph.

Source: Doenmez et al. 2023 (HNC), doi:10.18653/v1/2023.conll-1.24.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import random
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import tyro

from experiments.caption_reader import CaptionReader
from hnc_ds.captions.audit import audit, table
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.generate import generate
from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import CLASSES
from hnc_ds.captions.language.nouns import is_plural
from hnc_ds.captions.negatives.negative_types import HNC_TYPES
from hnc_ds.captions.truth.holds import Truth, holds
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.config import GenerateConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.interruptions import run as run_command
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph

Edge = tuple[str, str, str]
"""(subject's name, predicate, object's name)."""

AUDITED_FROM = 200
"""Images from which on text alone is tried: a classifier learns nothing from fewer."""

AUDITED_IMAGES = 5000

_PATIENCE = 5
"""Redraws of an entity with an attribute: theirs by default."""


@dataclass(frozen=True)
class Settings:
    """Compare the captions of the published HNC generator with ours."""

    checkout: tyro.conf.Positional[Path]
    """Folder of a clone of DigitalPhonetics/hard-negative-captions."""

    scene_graphs: tyro.conf.Positional[Path]
    """JSON in the layout of GQA's scene graphs."""

    mode: Literal["default", "released"] = "default"
    """The settings that the repository comes with, or those that made the released files: strict
    draws, a quantity threshold of 0. Strict draws follow the tables that are counted here, so that
    they need many graphs to be counted over."""

    tables_from: Path | None = None
    """Scene graphs over which the absent tables are counted; those of the captions if not given."""

    seed: int = 0
    """Of both generators' draws."""


class Judged(NamedTuple):
    """A true caption and a false one, and their truth in the graph."""

    type: str
    positive: str
    negative: str
    positive_truth: Truth | None
    """None where the text could not be read."""
    negative_truth: Truth | None


def compare(settings: Settings) -> None:
    """Print both beside each other.

    Raises:
        UserError: No checkout, no inflect, their code fails, unreadable scene graphs.
    """
    _check(settings)
    graphs = list(read_scene_graphs(settings.scene_graphs))
    if not graphs:
        raise UserError(f"{settings.scene_graphs}: holds no images")
    reader = _reader(settings.checkout, graphs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs = folder / "published.captions.jsonl"
        ours = folder / "ours.captions.jsonl"
        _write(theirs, _published(settings, graphs, folder))
        config = GenerateConfig(
            scene_graphs=settings.scene_graphs, out=ours, seed=settings.seed, workers=1
        )
        with redirect_stdout(StringIO()):
            generate(config)
        judged = {
            name: list(_judged(read_captions(path), graphs, reader))
            for name, path in (("published", theirs), ("hnc_ds", ours))
        }
        print("\n".join(_table(judged, len(graphs))))
        _print_examples(judged["published"], settings.seed)
        if len(graphs) < AUDITED_FROM:
            print(f"\nText alone is tried from {AUDITED_FROM} images on.")
            return
        for name, path in (("published", theirs), ("hnc_ds", ours)):
            print(f"\n{name}: text alone")
            print(table(audit(path, AUDITED_IMAGES, settings.seed)))


def _check(settings: Settings) -> None:
    if not (settings.checkout / "src" / "plausibility_selection.py").is_file():
        raise UserError(
            f"{settings.checkout}: is no checkout of the published generator; "
            "git clone https://github.com/DigitalPhonetics/hard-negative-captions"
        )
    if find_spec("inflect") is None:
        raise UserError("the published generator needs inflect: pip install inflect")
    if not settings.scene_graphs.is_file():
        raise UserError(f"{settings.scene_graphs}: no such file; give scene graphs as GQA's")


# ---- their generator


def _published(
    settings: Settings, graphs: Sequence[SceneGraph], folder: Path
) -> Iterator[ImageCaptions]:
    """Their captions, pairs by ``cpt_p_id``."""
    copy, out = folder / "checkout", folder / "published.json"
    shutil.copytree(settings.checkout, copy, ignore=shutil.ignore_patterns(".git"))
    counted_over = settings.tables_from
    tables_of = list(read_scene_graphs(counted_over)) if counted_over else []
    _complete_tables(copy / "meta_info", [*graphs, *tables_of])
    cleaned = {graph.image_id: _as_gqa(graph) for graph in graphs}
    (folder / "graphs.json").write_text(json.dumps(cleaned))
    call = f"published_captions.run_inside({str(folder)!r}, {settings.mode!r}, {settings.seed})"
    done = subprocess.run(
        [sys.executable, "-c", f"from experiments import published_captions; {call}"],
        cwd=copy,
        # They iterate over sets of words: without a hash seed no two runs are the same.
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(_paths(copy))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line and "it/s]" not in line]
        raise UserError(
            f"{settings.checkout}: the published generator failed with code {done.returncode}: "
            f"{' / '.join(lines[-3:])}"
        )
    for image_id, content in json.loads(out.read_text()).items():
        yield _paired(image_id, content["captions"])


def _paths(copy: Path) -> list[str]:
    here = str(Path(__file__).resolve().parent.parent)
    return [str(copy), here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]


def run_inside(folder: str, mode: str, seed: int) -> None:
    """In a process of its own, in the copy of the checkout: their modules read from it."""
    nltk: Any = ModuleType("nltk")
    nltk.pos_tag = lambda nouns: [(noun, "NNS" if is_plural(noun) else "NN") for noun in nouns]
    sys.modules["nltk"] = nltk
    random.seed(seed)
    np.random.seed(seed)
    from datasets.gqa import run_gqa  # type: ignore[import-not-found, attr-defined, unused-ignore]
    from misc.global_counter import init_counter  # type: ignore[import-not-found]
    from misc.logger import get_logger  # type: ignore[import-not-found]

    strict = mode == "released"
    config = {
        "logging_level": "warning",
        "obj_quant_threshold": 0 if strict else 2,
        "obj_quant_error_margin": 2,
        "rel_attr_patience": _PATIENCE,
    }
    graphs = json.loads(Path(folder, "graphs.json").read_text())
    counter = init_counter()
    counter["object"] = {"pos": 0, "neg": 0}
    found = run_gqa(graphs, config, counter, get_logger(config), True, not strict)
    Path(folder, "published.json").write_text(json.dumps(found))


def _paired(image_id: str, records: dict[str, dict[str, Any]]) -> ImageCaptions:
    """Positives of one text are one group, as in a captions file."""
    negatives: defaultdict[str, list[Negative]] = defaultdict(list)
    types: dict[str, str] = {}
    for record in records.values():
        if record["label"] == 0:
            positive = records[str(record["cpt_p_id"])]["caption"]
            types.setdefault(positive, record["type"])
            negatives[positive].append(Negative(record["caption"], record["type"]))
    groups = [CaptionGroup(text, types[text], tuple(found)) for text, found in negatives.items()]
    return ImageCaptions(image_id, tuple(groups))


def _as_gqa(graph: SceneGraph) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(graph)
    return content


def _complete_tables(folder: Path, graphs: Sequence[SceneGraph]) -> None:
    """Count the tables that the checkout lacks, and add words that its tables lack."""
    edges = Counter(_edges(graphs))
    absent: dict[str, dict[str, Any]] = {
        "obj2predicate2obj": _nested(edges),
        "pred_obj_to_subj_counts": _summed((f"{p}_{o}", s, n) for (s, p, o), n in edges.items()),
        "subj_pred_to_obj_counts": _summed((f"{s}_{p}", o, n) for (s, p, o), n in edges.items()),
        "subj_obj_to_pred_counts": _summed((f"{s}_{o}", p, n) for (s, p, o), n in edges.items()),
    }
    for name, content in absent.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            path.write_text(json.dumps(content))
    for name, found in _present(graphs, edges).items():
        path = folder / f"{name}.json"
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**found, **known} | _with_words(known, found)))


def _present(graphs: Sequence[SceneGraph], edges: Counter[Edge]) -> dict[str, dict[str, Any]]:
    """What the tables of the checkout would hold of these graphs."""
    numbers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    objects: Counter[str] = Counter()
    attributes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for graph in graphs:
        names = Counter(found.name for found in graph.objects.values())
        objects += names
        for name, number in names.items():
            numbers[name][str(number)] += 1
        for found in graph.objects.values():
            attributes[found.name].update(found.attributes)
    return {
        "all_obj_counts": dict(numbers),
        "obj_counts": dict(objects),
        "obj_to_attr_counts": dict(attributes),
        "pred_to_subj_counts": _summed((p, s, n) for (s, p, _), n in edges.items()),
        "pred_to_obj_counts": _summed((p, o, n) for (_, p, o), n in edges.items()),
    }


def _with_words(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The rows of a table that both have, with the words that the table lacks of them."""
    return {
        key: {**found[key], **row} if isinstance(row, dict) else row
        for key, row in known.items()
        if key in found
    }


def _edges(graphs: Iterable[SceneGraph]) -> Iterator[Edge]:
    for graph in graphs:
        for subject in graph.objects.values():
            for relation in subject.relations:
                yield subject.name, relation.name, graph.objects[relation.object].name


def _nested(edges: Iterable[Edge]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for subject, predicate, object_ in edges:
        found.setdefault(subject, {}).setdefault(predicate, []).append(object_)
    return found


def _summed(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for key, word, number in rows:
        found.setdefault(key, Counter())[word] += number
    return {key: dict(words) for key, words in found.items()}


def _write(path: Path, images: Iterable[ImageCaptions]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(image) + b"\n" for image in images))


# ---- judging


def _reader(checkout: Path, graphs: Iterable[SceneGraph]) -> CaptionReader:
    """With the words of the graphs, of the checkout's tables and of our lists."""
    tables = {
        name: json.loads((checkout / "meta_info" / f"{name}.json").read_text())
        for name in ("obj_counts", "attribute_hierarchy", "pred_to_subj_counts")
    }
    objects = [found for graph in graphs for found in graph.objects.values()]
    return CaptionReader(
        {*tables["obj_counts"], *(found.name for found in objects)},
        {
            *(value for values in tables["attribute_hierarchy"].values() for value in values),
            *(value for found in objects for value in found.attributes),
            *(value for cls in CLASSES for cell in cls.cells for value in cell),
        },
        {
            *tables["pred_to_subj_counts"],
            *(relation.name for found in objects for relation in found.relations),
            *predicates.known(),
        },
    )


def _judged(
    images: Iterable[ImageCaptions], graphs: Iterable[SceneGraph], reader: CaptionReader
) -> Iterator[Judged]:
    graph_of = {graph.image_id: graph for graph in graphs}
    for image in images:
        graph = graph_of[image.image_id]
        names = frozenset(found.name for found in graph.objects.values())
        indexed = IndexedGraph(graph)

        def truth_of(
            caption: str, names: frozenset[str] = names, indexed: IndexedGraph = indexed
        ) -> Truth | None:
            claim = reader.claim_of(caption, names)
            return None if claim is None else holds(indexed, claim)

        for group in image.groups:
            truth = truth_of(group.positive)
            for negative in group.negatives:
                yield Judged(
                    negative.type,
                    group.positive,
                    negative.caption,
                    truth,
                    truth_of(negative.caption),
                )


# ---- what is printed


_COLUMNS = ("pairs", "wrong", "unproven", "unread")


def _table(judged: dict[str, list[Judged]], images: int) -> Iterator[str]:
    types = dict.fromkeys([*HNC_TYPES, *(pair.type for pairs in judged.values() for pair in pairs)])
    wide = max(len(name) for name in (*types, "all types"))
    yield f"{counted(images, 'image')}; pairs an image, and shares of the pairs"
    yield f"{'':{wide}}" + "".join(f"  {name:^35}" for name in judged)
    yield f"{'':{wide}}" + 2 * ("  " + "".join(f"{column:>9}" for column in _COLUMNS)[1:])
    for name in (*types, "all types"):
        cells = [
            _cells([p for p in pairs if name in (p.type, "all types")], images)
            for pairs in judged.values()
        ]
        yield f"{name:{wide}}" + "".join(f"  {cell[1:]}" for cell in cells)
    yield ""
    yield "wrong: the graph refutes the true caption, or says the false one, or both are one text"
    yield "unproven: not wrong, but the graph does not prove the false caption false"
    yield "unread: not judged, as the text of either fits no template"


def _cells(pairs: Sequence[Judged], images: int) -> str:
    if not pairs:
        return f"{'-':>9}" + 3 * f"{'':>9}"
    shares = [
        sum(map(is_so, pairs)) / len(pairs) for is_so in (_is_wrong, _is_unproven, _is_unread)
    ]
    return f"{len(pairs) / images:>9.1f}" + "".join(f"{share:>9.1%}" for share in shares)


def _is_unread(pair: Judged) -> bool:
    return pair.positive_truth is None or pair.negative_truth is None


def _is_wrong(pair: Judged) -> bool:
    if pair.positive == pair.negative:
        return True
    return pair.positive_truth is Truth.FALSE or pair.negative_truth is Truth.TRUE


def _is_unproven(pair: Judged) -> bool:
    return not _is_wrong(pair) and not _is_unread(pair) and pair.negative_truth is not Truth.FALSE


def _print_examples(pairs: Sequence[Judged], seed: int) -> None:
    """Wrong pairs to be read, of each type at most one."""
    wrong = [pair for pair in pairs if _is_wrong(pair)]
    random.Random(seed).shuffle(wrong)
    by_type = {pair.type: pair for pair in wrong}
    print("\nWrong pairs of the published generator, one a type")
    for name in sorted(by_type):
        pair = by_type[name]
        print(f"  {name}\n    + {pair.positive}\n    - {pair.negative}")


if __name__ == "__main__":
    run_command("published_captions.py", lambda: compare(tyro.cli(Settings, description=__doc__)))
