"""hnc_ds.captions_of: captions of a graph in memory, in two layouts."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import hnc_ds
from hnc_ds.cli import main
from hnc_ds.reading import open_unzipped
from hnc_ds.records import ImageCaptions

BUS = {"name": "bus", "x": 10, "y": 10, "w": 30, "h": 30, "attributes": ["red"]}
CAR = {"name": "car", "x": 60, "y": 10, "w": 30, "h": 30, "attributes": ["blue"], "relations": []}
GQA: dict[str, Any] = {
    "width": 90,
    "height": 40,
    "objects": {
        "1": {**BUS, "relations": [{"name": "to the left of", "object": "2"}]},
        "2": CAR,
    },
}


def named(of: dict[str, Any], object_id: int) -> dict[str, Any]:
    """An object of Visual Genome."""
    box = {name: of[name] for name in "xywh"}
    return {"object_id": object_id, "names": [of["name"]], **box}


SCENE_GRAPH = {
    "image_id": 7,
    "objects": [
        {**named(BUS, 1), "attributes": ["red"]},
        {**named(CAR, 2), "attributes": ["blue"], "synsets": ["car.n.01"]},
    ],
    "relationships": [
        {"relationship_id": 4, "predicate": "TO THE LEFT OF", "subject_id": 1, "object_id": 2}
    ],
}
JOINED = {
    "image_id": 7,
    "relationships": [
        {"predicate": "to the left of", "subject": named(BUS, 1), "object": named(CAR, 2)}
    ],
    "attributes": [
        {**named(BUS, 1), "attributes": ["red"]},
        {**named(CAR, 2), "attributes": ["blue"]},
        {**named(CAR, 2), "attributes": ["blue"]},
    ],
}


def test_they_are_those_of_generate(
    tmp_path: Path, scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = json.loads((scene_shards.parent / "val_sceneGraphs.json").read_text())
    source = tmp_path / "graphs.json"
    source.write_text(json.dumps(graphs))
    out = tmp_path / "c.jsonl"
    flags = (
        "--balance image --types swap attribute --per-image 7 --by-colour 0.5 --seed 3 --workers 1"
    )
    command = ["hnc-ds", "generate", "--scene-graphs", source, "--out", out, *flags.split()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(word) for word in command])
        assert main() == 0
    with open_unzipped(out) as lines:
        written = [msgspec.json.decode(line, type=ImageCaptions) for line in lines]
    settings: dict[str, Any] = {"per_image": 7, "by_colour": 0.5, "seed": 3}
    assert len(written) > 5
    for image in written:
        graph, types = graphs[image.image_id], ["swap", "attribute"]
        assert hnc_ds.captions_of(graph, image.image_id, types=types, **settings) == image.groups


def test_a_graph_of_two_objects_has_these_captions() -> None:
    groups = hnc_ds.captions_of(GQA, types="swap")
    found = {group.positive: [n.caption for n in group.negatives] for group in groups}
    assert found["The red bus is to the left of the blue car."] == [
        "The blue car is to the left of the red bus."
    ]
    assert {n.type for group in groups for n in group.negatives} == {"swap"}


@pytest.mark.parametrize("graph", [SCENE_GRAPH, JOINED], ids=["scene_graphs", "joined"])
def test_visual_genome_gives_the_captions_of_the_same_graph_in_gqas_layout(
    graph: dict[str, Any],
) -> None:
    expected = hnc_ds.captions_of(GQA, "7")
    assert len(expected) > 10
    assert hnc_ds.captions_of(graph) == expected
    assert hnc_ds.captions_of(graph, seed=1) == hnc_ds.captions_of(GQA, "7", seed=1)
    larger = hnc_ds.captions_of({**graph, "width": 500, "height": 300})
    assert larger == hnc_ds.captions_of({**GQA, "width": 500, "height": 300}, "7")


@pytest.mark.parametrize("around", ["Is to the left of ", "to the left of the", "to the left of a"])
def test_words_around_a_predicate_that_captions_have_themselves_are_removed(around: str) -> None:
    relation = {"predicate": around, "subject_id": 1, "object_id": 2}
    graph = SCENE_GRAPH | {"relationships": [relation]}
    assert hnc_ds.captions_of(graph) == hnc_ds.captions_of(GQA, "7")


def test_a_predicate_with_words_of_the_object_is_not_said() -> None:
    relation = {"predicate": "carrying blue", "subject_id": 1, "object_id": 2}
    for group in hnc_ds.captions_of(SCENE_GRAPH | {"relationships": [relation]}):
        assert "carrying" not in group.positive


def test_relations_whose_ends_are_missing_are_left_out() -> None:
    more = [
        {"predicate": "on", "subject_id": 1, "object_id": 9},
        {"predicate": "on", "subject_id": 9, "object_id": 1},
        {"predicate": "on"},
    ]
    graph = {**SCENE_GRAPH, "relationships": [*SCENE_GRAPH["relationships"], *more]}  # type: ignore[misc]
    assert hnc_ds.captions_of(graph) == hnc_ds.captions_of(GQA, "7")


@pytest.mark.parametrize(
    ("graph", "settings", "message"),
    [
        ({}, {}, r"captions_of: not a GQA scene graph \(.*`width`\)"),
        (
            {"image_id": 7, "objects": [{"object_id": 1}]},
            {},
            r"captions_of: image '7': not a scene graph of Visual Genome \(.*`x`",
        ),
        (GQA, {"types": ["swop"]}, r"unknown negative type 'swop'; did you mean 'swap'\?"),
        (GQA, {"per_image": 0}, "per_image is 0; it must be 1 or more"),
        (GQA, {"by_colour": 2}, "by_colour is 2"),
    ],
)
def test_what_is_wrong_is_named(
    graph: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(hnc_ds.UserError, match=message):
        hnc_ds.captions_of(graph, **settings)
