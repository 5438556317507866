"""Frequencies: what is counted, of which files, and that the file reads back equal."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hnc_ds.captions.first_pass import write_tables
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.tables import VERSION, Tables, count_tables, held_out, read_tables
from hnc_ds.config import TablesConfig
from hnc_ds.errors import UserError
from hnc_ds.records import Relation, SceneGraph, SceneObject


def thing(name: str, *attributes: str, on: str = "") -> SceneObject:
    relations = (Relation("on", on),) if on else ()
    return SceneObject(name, 0, 0, 9, 9, attributes, relations)


def graph(image_id: str, **objects: SceneObject) -> SceneGraph:
    return SceneGraph(image_id, 90, 90, objects)


TWO_IMAGES = [
    graph("1", a=thing("cup", "grey", "small", on="b"), b=thing("table"), c=thing("cup", "gray")),
    graph("2", a=thing("cup", "gray", "grey", on="b"), b=thing("tray", on="c"), c=thing("table")),
]


def test_every_attribute_edge_and_number_is_counted_by_hand() -> None:
    tables = count_tables(TWO_IMAGES, "g.json")
    assert tables == Tables(
        version=VERSION,
        source="g.json",
        images=2,
        attributes={"cup": {"gray": 3, "small": 1}},  # grey is gray, and once per cup
        subjects={"on": {"cup": 2, "tray": 1}},
        objects={"on": {"table": 2, "tray": 1}},
        counts={"cup": {1: 1, 2: 1}, "table": {1: 2}, "tray": {1: 1}},
    )


def test_a_name_that_also_stands_for_a_group_is_not_counted_in_that_image() -> None:
    graphs = [
        graph("1", a=thing("banana"), b=thing("bananas"), c=thing("bowl")),
        graph("2", a=thing("banana"), b=thing("banana"), c=thing("banana")),
        graph("3", a=thing("bananas")),
    ]
    assert count_tables(graphs).counts == {"banana": {3: 1}, "bowl": {1: 1}}


def test_the_order_of_the_graphs_does_not_matter() -> None:
    one, other = count_tables(TWO_IMAGES), count_tables(reversed(TWO_IMAGES))
    assert json.dumps(one.attributes) == json.dumps(other.attributes)
    assert list(one.counts) == list(other.counts) == sorted(one.counts)


def test_graphs_are_taken_one_at_a_time() -> None:
    """What is streamed must not be collected before it is counted."""
    taken: list[str] = []

    def graphs() -> Any:
        for image in TWO_IMAGES:
            taken.append(image.image_id)
            yield image

    assert count_tables(graphs()).images == len(taken) == 2


@pytest.fixture
def source(tmp_path: Path) -> Path:
    content = {
        "7": {
            "width": 9,
            "height": 9,
            "objects": {
                "a": {
                    "name": "cup",
                    **dict.fromkeys("xywh", 1),
                    "attributes": ["red"],
                    "relations": [{"name": "on", "object": "b"}, {"name": "on", "object": "no"}],
                },
                "b": {"name": "tray", **dict.fromkeys("xywh", 1)},
            },
        }
    }
    path = tmp_path / "train_sceneGraphs.json"
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read_again(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, packed = tmp_path / "new" / "t.json", tmp_path / "t.json.gz"
    for out in (plain, packed):
        write_tables(TablesConfig(scene_graphs=source, out=out))
    tables = read_tables(plain)
    assert tables == read_tables(packed)
    counted = count_tables(read_scene_graphs(source), source.name)
    assert tables == msgspec.structs.replace(counted, changes=tables.changes)
    assert tables.objects == {"on": {"tray": 1}}
    assert tables.counts == {"cup": {1: 1}, "tray": {1: 1}}
    assert "t.json: 1 image," in capsys.readouterr().out


def test_the_same_graphs_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{i}.json.gz" for i in range(2)]
    for out in outs:
        write_tables(TablesConfig(scene_graphs=source, out=out))
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert outs[0].read_bytes()[4:8] == bytes(4)  # no time in the header


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_sceneGraphs.json", False),
        ("val_sceneGraphs.json.gz", True),
        ("valSceneGraphs.json", True),
        ("VAL.json", True),
        ("graphs-test2017.json", True),
        ("gqa_trainval.json", True),
        ("valley.json", False),
        ("latest_graphs.json", False),
    ],
)
def test_file_names_reveal_what_is_not_for_training(name: str, expected: bool) -> None:
    assert held_out(name) == expected


def refusal(**settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        write_tables(TablesConfig(**settings))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_validation_graphs_are_refused_unless_asked_for(source: Path, tmp_path: Path) -> None:
    val, out = source.with_name("val_sceneGraphs.json"), tmp_path / "t.json"
    source.rename(val)
    message = refusal(scene_graphs=val, out=out)
    assert "validation or test file" in message
    assert "--any-split" in message
    assert not out.exists()
    write_tables(TablesConfig(scene_graphs=val, out=out, any_split=True))
    assert read_tables(out).source == "val_sceneGraphs.json"


def test_bad_requests_are_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    assert "must end in .json" in refusal(scene_graphs=source, out=tmp_path / "t.csv")
    assert "no such file" in refusal(scene_graphs=tmp_path / "none.json", out=out)
    out.write_text("mine")
    assert "--overwrite" in refusal(scene_graphs=source, out=out)
    assert out.read_text() == "mine"
    (tmp_path / "empty.json").write_text("{}")
    other = tmp_path / "u.json"
    assert "holds no images" in refusal(scene_graphs=tmp_path / "empty.json", out=other)
    assert "cannot be written" in refusal(scene_graphs=source, out=source / "in a file" / "t.json")
    assert not other.exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.json", None, "no such file"),
        ("t.json", b"{", "not tables of 'hnc-ds tables'"),
        ("t.json", b'{"version": 1}', "missing required field"),
        ("t.json.gz", gzip.compress(b"{}", mtime=0)[:-4], "truncated or broken gzip"),
    ],
)
def test_other_files_are_not_read_as_tables(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as raised:
        read_tables(path)
    assert str(path) in str(raised.value)


def test_tables_of_another_version_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    write_tables(TablesConfig(scene_graphs=source, out=out))
    out.write_text(out.read_text().replace(f'"version":{VERSION}', '"version":1'))
    with pytest.raises(UserError, match=f"tables of version 1, this program reads {VERSION}"):
        read_tables(out)
