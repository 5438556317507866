"""Reading GQA's layout: streaming, mending, refusing."""

import gzip
import json
import tracemalloc

import pytest

from hnc_ds.captions.formats import json_members
from hnc_ds.captions.formats.scene_graphs import (
    EMPTY_ATTRIBUTE,
    MISSING_END,
    NO_AREA,
    NO_NAME,
    NO_PREDICATE,
    SEEN_TWICE,
    TO_ITSELF,
    ReadCounts,
    read_scene_graphs,
)
from hnc_ds.errors import UserError


def an_object(name="star", **fields):
    return {
        "name": name,
        "x": 1,
        "y": 2,
        "w": 3,
        "h": 4,
        "attributes": [],
        "relations": [],
    } | fields


def a_graph(**objects):
    return {"width": 100, "height": 50, "objects": objects}


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def read(path):
    counts = ReadCounts()
    return list(read_scene_graphs(path, counts)), counts


def refusal(path):
    with pytest.raises(UserError) as raised:
        list(read_scene_graphs(path))
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_graph_is_read_with_all_its_fields(tmp_path):
    content = {
        "7": a_graph(
            a=an_object(
                "traffic light",
                attributes=["red", "tall"],
                relations=[{"name": "near", "object": "b"}],
            ),
            b=an_object("pole"),
        )
        | {"location": "street", "weather": "clear"}
    }
    (graph,), counts = read(write(tmp_path / "g.json", content))
    assert (graph.image_id, graph.width, graph.height) == ("7", 100, 50)
    light = graph.objects["a"]
    assert (light.name, light.x, light.y, light.w, light.h) == ("traffic light", 1, 2, 3, 4)
    assert light.attributes == ("red", "tall")
    assert [(r.name, r.object) for r in light.relations] == [("near", "b")]
    assert counts.images == 1
    assert not counts.irregular


def test_gzip_and_plain_files_read_alike_whatever_they_are_called(tmp_path):
    content = {str(i): a_graph(a=an_object()) for i in range(5)}
    plain = write(tmp_path / "g.json", content)
    expected = read(plain)[0]
    packed = tmp_path / "g.json.gz"
    for data in (gzip.compress(plain.read_bytes()), plain.read_bytes()):
        packed.write_bytes(data)
        assert read(packed)[0] == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_any_block_size_cuts_the_same_members(tmp_path, monkeypatch, size):
    content = {
        'a"\\{': a_graph(x=an_object('br{ace "quoted" \\')),
        "b": a_graph(),
        "ü": {"width": 1, "height": 1, "objects": {}},
    }
    path = write(tmp_path / "g.json", json.dumps(content, indent=1))
    monkeypatch.setattr(json_members, "READ_BYTES", size)
    cut = {m.key: json.loads(m.value) for m in json_members.members(path)}
    assert cut == content


def test_offsets_point_at_the_values(tmp_path, monkeypatch):
    path = write(tmp_path / "g.json", {"a": [1, 2], "b": {"c": "d"}, "e": 17})
    monkeypatch.setattr(json_members, "READ_BYTES", 5)
    data = path.read_bytes()
    for member in json_members.members(path):
        assert data[member.offset : member.offset + len(member.value)] == member.value


def test_known_faults_of_real_files_are_fixed_and_counted(tmp_path):
    content = {
        "1": a_graph(
            a=an_object(
                " Red  Star ",
                x=1.6,
                w=0,
                attributes=["", "red", "red"],
                relations=[
                    {"name": "near", "object": "gone"},
                    {"name": "near", "object": "nameless"},
                    {"name": "near", "object": "a"},
                    {"name": " ", "object": "b"},
                    {"name": "Next  To", "object": "b", "extra": 1},
                ],
            ),
            b=an_object("café", y=-3.5),
            nameless=an_object("  "),
        )
    }
    (graph,), counts = read(write(tmp_path / "g.json", content))
    assert sorted(graph.objects) == ["a", "b"]
    assert graph.objects["a"].name == "red star"
    assert graph.objects["a"].x == 2
    assert graph.objects["a"].attributes == ("red",)
    assert [(r.name, r.object) for r in graph.objects["a"].relations] == [("next to", "b")]
    assert counts.irregular == {
        NO_AREA: 1,
        EMPTY_ATTRIBUTE: 1,
        MISSING_END: 2,
        TO_ITSELF: 1,
        NO_PREDICATE: 1,
        NO_NAME: 1,
    }


def test_of_an_image_that_occurs_twice_the_first_counts(tmp_path):
    first, second = json.dumps(a_graph(a=an_object("cat"))), json.dumps(a_graph())
    path = write(tmp_path / "g.json", f'{{"1": {first}, "1": {second}}}')
    (graph,), counts = read(path)
    assert graph.objects["a"].name == "cat"
    assert (counts.images, counts.irregular) == (1, {SEEN_TWICE: 1})


def test_a_file_without_images_gives_none(tmp_path):
    assert read(write(tmp_path / "g.json", " {} \n"))[0] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "byte 0: expected '{'"),
        ("", "byte 0: expected '{'"),
        ('{"1": {"width": 1, "height": 1}}', "image '1': not a GQA scene graph"),
        ('{"1": 3}', "image '1': not a GQA scene graph"),
        ('{"1": "x"}', "image '1': not a GQA scene graph"),
        ('{"1": [{"objects": {}}]}', "image '1': not a GQA scene graph"),
        ('{"1": {"width": "wide", "height": 1, "objects": {}}}', "$.width"),
        (json.dumps({"1": a_graph(a=an_object(name=3))}), "$.objects[...].name"),
        (json.dumps({"1": a_graph(a=an_object(attributes="red"))}), "$.objects[...].attributes"),
        (
            json.dumps({"1": a_graph(a=an_object(relations=[{"name": "on"}]))}),
            "$.objects[...].relations[0]",
        ),
        ('{"1": {"width": 1, "height": 1, "objects": {}},}', "byte 47"),
        ('{"1": {"width": 1, "height": 1, "objects": {}}', "byte 46: expected ',' or '}'"),
        ('{"1": {"width": 1, "height": ', "ends in the middle"),
        ('{"1": {"width": 1, "height": 1, "objects": {}}} x', "expected the end"),
        ('{"1": {"width": 1 "height": 1, "objects": {}}}', "image '1': broken JSON"),
        ("{1: 2}", "byte 1"),
        ('{"1" 2}', "byte 1"),
        ('{"1": ', "byte 1"),
    ],
)
def test_what_is_not_gqa_is_refused_in_one_line(tmp_path, content, expected):
    assert expected in refusal(write(tmp_path / "g.json", content))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_members, "READ_BYTES", 1 << 16)
    one = json.dumps(a_graph(**{str(i): an_object() for i in range(50)}))

    def peak_of(images):
        content = "{" + ", ".join(f'"{i}": {one}' for i in range(images)) + "}"
        path = write(tmp_path / "g.json", content)
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_scene_graphs(path)) == images
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(10)  # what is made once and kept
    assert peak_of(1000) < 1.3 * peak_of(100)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"", b'zz, "objects": {}}}'),
        (b"", b'\xff, "objects": {}}}'),
        (b"", b"]}}"),
        (b"1 ", b'1, "objects": {}}}'),
        (b'1, "objects": {"a": {"name": "', b'\xc3("}}}}'),
    ],
)
def test_broken_json_inside_of_a_graph_is_reported_with_the_byte_in_the_file(tmp_path, good, bad):
    first = b'{"1": {"width": 1, "height": 1, "objects": {}},\n "2": {"width": 1, "height": '
    path = tmp_path / "g.json"
    path.write_bytes(first + good + bad)
    assert f"image '2': broken JSON at byte {len(first + good)}: " in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.json")
    assert "cannot be read" in refusal(tmp_path)


def test_a_cut_off_gzip_file_is_refused(tmp_path):
    path = tmp_path / "g.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"1": a_graph(a=an_object())}).encode())[:-12])
    assert "truncated or broken gzip" in refusal(path)


@pytest.mark.parametrize("wrong", ["1e308", "-1e7", "NaN", "1e999", "9" * 400, "true", "null"])
def test_a_number_that_is_no_place_in_an_image_is_refused_with_its_field(tmp_path, wrong):
    path = tmp_path / "g.json"
    text = json.dumps({"i": a_graph(o1=an_object())}).replace('"x": 1', f'"x": {wrong}')
    path.write_text(text)
    with pytest.raises(UserError, match=r"g\.json: image 'i': ") as error:
        list(read_scene_graphs(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ['"o1"', '"x"', '"objects"', '"width"'])
def test_a_key_that_stands_twice_in_a_graph_is_refused(tmp_path, key):
    path = tmp_path / "g.json"
    text = json.dumps({"i": a_graph(o1=an_object())})
    value = text[text.index(key) + len(key) + 2 :]
    first = json.JSONDecoder().raw_decode(value)[1]
    path.write_text(text.replace(key, f"{key}: {value[:first]}, {key}", 1))
    with pytest.raises(UserError, match="occurs twice"):
        list(read_scene_graphs(path))


@pytest.mark.parametrize("unit", [b" ", b"[", b'"x'])
def test_a_file_that_unpacks_to_more_than_text_can_is_refused_early(tmp_path, unit):
    path = tmp_path / "g.json.gz"
    path.write_bytes(gzip.compress(unit * (1 << 25), mtime=0) * 20)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"g\.json\.gz: "):
        list(read_scene_graphs(path))
    assert tracemalloc.get_traced_memory()[1] < 300 << 20
    tracemalloc.stop()
