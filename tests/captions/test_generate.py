"""The stage as a whole: bytes, resuming, refusals."""

import gzip
import json
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest

from hnc_ds.captions import captions_file, groups
from hnc_ds.captions.caption_stats import stats_path_of
from hnc_ds.captions.captions_file import no_garbage_collection
from hnc_ds.captions.first_pass import write_tables
from hnc_ds.captions.generate import generate
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import DescribedImage
from hnc_ds.captions.parts import Parts
from hnc_ds.config import GenerateConfig, TablesConfig
from hnc_ds.errors import UserError
from hnc_ds.records import ImageCaptions
from tests.captions.accidents import run_stage
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.drawing import draw_world

IMAGES = 40
RARE = {"obj_count", "obj_comp_count"}
"""Types of which some images, but not every forty images, have negatives."""


def scene_graphs(path, images=IMAGES):
    rng = random.Random(5)
    content = {}
    for image in range(images):
        objects = {
            str(i): {
                "name": name,
                "x": rng.randint(0, 400),
                "y": rng.randint(0, 400),
                "w": 30,
                "h": 30,
                "attributes": [rng.choice(["red", "blue", "green"])],
                "relations": [],
            }
            for i, name in enumerate(["star", "ring", "cross", "star", "moon"])
        }
        for a, b in [("0", "1"), ("1", "2"), ("2", "4"), ("4", "0"), ("3", "1")]:
            word = "left" if objects[a]["x"] < objects[b]["x"] else "right"
            objects[a]["relations"].append({"name": f"to the {word} of", "object": b})
        content[f"n{image}"] = {"width": 450, "height": 450, "objects": objects}
    path.write_text(json.dumps(content))
    return path


def dense_scene_graphs(path, images=IMAGES):
    """As many objects, attributes and relations as in GQA, of which every type can be made."""
    rng = random.Random(5)
    graphs = [annotate(rng, draw_world(rng), f"n{image}") for image in range(images)]
    path.write_bytes(msgspec.json.encode({graph.image_id: graph for graph in graphs}))
    return path


def run(tmp_path, source, out, workers=1, accident="none", hash_seed="0", tables=None, **more):
    paths = {"scene_graphs": source, "out": out} | ({"tables": tables} if tables else {})
    more |= {"workers": workers}
    return run_stage(tmp_path, "generate", "GenerateConfig", paths, accident, hash_seed, **more)


@pytest.fixture
def source(tmp_path):
    return scene_graphs(tmp_path / "g.json")


def test_one_line_per_image_in_the_order_of_the_input(source, tmp_path, capsys):
    out = tmp_path / "deep" / "g.captions.jsonl.gz"
    generate(GenerateConfig(scene_graphs=source, out=out, workers=1))
    lines = gzip.decompress(out.read_bytes()).splitlines()
    captions = [msgspec.json.decode(line, type=ImageCaptions) for line in lines]
    assert [c.image_id for c in captions] == [f"n{i}" for i in range(IMAGES)]
    assert sum(len(c.groups) for c in captions) > IMAGES
    assert sorted(p.name for p in out.parent.iterdir()) == [out.name, "g.captions.stats.json"]
    printed = capsys.readouterr().out
    assert f"{IMAGES} images" in printed
    assert "pairs per image" in printed
    assert all(len(line) <= 100 for line in printed.splitlines()[1:])

    stats = json.loads((tmp_path / "deep" / "g.captions.stats.json").read_text())
    assert stats["images"] == IMAGES
    assert stats["groups"]["all"] == sum(len(c.groups) for c in captions)
    for name, count in stats["negatives"].items():
        assert count == sum(n.type == name for c in captions for g in c.groups for n in g.negatives)
    assert stats["settings"]["seed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "open world, with tables"])
def test_the_bytes_depend_neither_on_workers_nor_on_the_hash_seed(tmp_path, how):
    source = dense_scene_graphs(tmp_path / "train.json")
    more = {}
    if how != "plain":
        write_tables(TablesConfig(scene_graphs=source, out=tmp_path / "tables.json"))
        more = {"open_world": True, "tables": tmp_path / "tables.json"}
    outs = [tmp_path / f"{i}" / "c.jsonl.gz" for i in range(3)]
    for out, workers, hash_seed in zip(outs, (1, 2, 4), ("0", "1", "77"), strict=True):
        done = run(tmp_path, source, out, workers, hash_seed=hash_seed, **more)
        assert done.returncode == 0, done.stderr
    assert len({out.read_bytes() for out in outs}) == 1
    assert len({stats_path_of(out).read_bytes() for out in outs}) == 1
    made = json.loads(stats_path_of(outs[0]).read_bytes())["negatives"]
    assert {name for name, count in made.items() if count} >= {*DEFAULT_TYPES} - RARE


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that meets no accident makes of the source."""
    folder = tmp_path_factory.mktemp("whole")
    out = folder / "whole.jsonl.gz"
    assert run(folder, scene_graphs(folder / "g.json"), out).returncode == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["kill at part 0", "kill at part 3", "kill while joining"])
def test_a_killed_run_resumes_to_the_same_bytes(source, whole, tmp_path, accident):
    broken = tmp_path / "broken.jsonl.gz"
    assert run(tmp_path, source, broken, accident=accident).returncode == -9
    assert not broken.exists()
    resumed = run(tmp_path, source, broken, workers=2)
    assert resumed.returncode == 0, resumed.stderr
    assert ("done already" in resumed.stdout) == (accident != "kill at part 0")
    assert broken.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob(".*.lock"))
    assert stats_path_of(broken).read_bytes() == stats_path_of(whole).read_bytes()
    assert not broken.with_name(broken.name + ".parts").exists()


@pytest.mark.slow
def test_outputs_made_of_finished_captions_are_completed_later(source, tmp_path, capsys):
    out, release = tmp_path / "c.jsonl", tmp_path / "release.json"
    generate(GenerateConfig(scene_graphs=source, out=out, workers=1))  # and was stopped here
    before = out.read_bytes(), stats_path_of(out).read_bytes()
    generate(GenerateConfig(scene_graphs=source, out=out, hnc_json=release, workers=1))
    assert release.is_file()
    generate(GenerateConfig(scene_graphs=source, out=out, audit=True))
    audited = json.loads(stats_path_of(out).read_bytes())
    assert audited.pop("audit")
    assert (out.read_bytes(), audited) == (before[0], json.loads(before[1]))


@pytest.mark.slow
def test_jobs_of_an_array_give_the_bytes_of_a_single_run(source, whole, tmp_path):
    out = tmp_path / "shared.jsonl.gz"
    first = run(tmp_path, source, out, part="0/3")
    assert "part 0 of 3 is done, others are not" in first.stdout
    assert run(tmp_path, source, out, part="2/3", accident="kill at part 2").returncode == -9
    other = run(tmp_path, source, out, part="1/3", seed=1)
    assert other.returncode == 2
    assert "holds parts of other settings" in other.stderr
    with ThreadPoolExecutor() as at_once:
        last = at_once.map(lambda part: run(tmp_path, source, out, part=part), ("1/3", "2/3"))
        assert [done.returncode for done in last] == [0, 0]
    assert out.read_bytes() == whole.read_bytes()
    assert stats_path_of(out).read_bytes() == stats_path_of(whole).read_bytes()
    assert not out.with_name(out.name + ".parts").exists()
    again = run(tmp_path, source, out, part="0/3")  # requeued
    assert "nothing to do" in again.stdout
    assert run(tmp_path, source, out, seed=1).returncode == 2


STEPS = ("__init__", "keep", "finished", "stats", "join", "remove")


@pytest.mark.slow
@pytest.mark.parametrize("step", range(8))
def test_another_job_may_finish_everything_at_any_moment(source, tmp_path, monkeypatch, step):
    """All images are in part 0, so the job of part 1 has nothing to do but may be late."""
    out, alone = tmp_path / "c.jsonl", tmp_path / "alone.jsonl"
    generate(GenerateConfig(scene_graphs=source, out=alone, workers=1))
    late = GenerateConfig(scene_graphs=source, out=out, part="1/2", workers=1)
    steps = iter(range(99))

    def at_a_step(work):
        def first_the_other(*given, **more):
            if next(steps) == step:
                generate(replace(late, part="0/2"))
            return work(*given, **more)

        return first_the_other

    unfinished = Parts.unfinished
    monkeypatch.setattr(Parts, "unfinished", staticmethod(at_a_step(unfinished)))
    for name in STEPS:
        monkeypatch.setattr(Parts, name, at_a_step(getattr(Parts, name)))
    looked = at_a_step(captions_file.holds_captions_of)
    monkeypatch.setattr(captions_file, "holds_captions_of", looked)
    generate(late)
    assert next(steps) > step
    assert out.read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("c.*")) == ["c.jsonl", "c.stats.json"]


@pytest.mark.slow
def test_parts_of_other_settings_are_not_used(source, tmp_path):
    out, fresh = tmp_path / "c.jsonl", tmp_path / "fresh.jsonl"
    assert run(tmp_path, source, out, accident="kill at part 3").returncode == -9
    other = scene_graphs(tmp_path / "g.json", images=IMAGES - 1)
    resumed = run(tmp_path, other, out)
    assert "done already" not in resumed.stdout
    assert run(tmp_path, other, fresh).returncode == 0
    assert out.read_bytes() == fresh.read_bytes()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_output(source, tmp_path):
    out = tmp_path / "c.jsonl"
    done = run(tmp_path, source, out, accident="full disk")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(tmp_path, source, out).returncode == 0


def test_an_image_is_gone_without_garbage_collection_as_workers_do_not_do_any(monkeypatch):
    images = []

    class Seen(DescribedImage):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            images.append(weakref.ref(self))

    monkeypatch.setattr(groups, "DescribedImage", Seen)
    rng = random.Random(5)
    with no_garbage_collection():
        for image in range(IMAGES):
            graph = annotate(rng, draw_world(rng), f"n{image}")
            groups.caption_groups(graph, tuple(NEGATIVE_TYPES), 0)
        assert len(images) == IMAGES
        assert not [image for image in images if image() is not None]


def test_types_can_be_chosen_and_keep_the_order_of_the_table(source, tmp_path):
    out = tmp_path / "c.jsonl"
    generate(
        GenerateConfig(scene_graphs=source, out=out, types=("swap", "relation_pred"), workers=1)
    )
    stats = json.loads((tmp_path / "c.stats.json").read_text())
    assert list(stats["negatives"]) == ["relation_pred", "swap"]


def refusal(**fields):
    with pytest.raises(UserError) as raised:
        generate(GenerateConfig(workers=1, **fields))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_bad_requests_are_refused_before_anything_is_written(source, tmp_path):
    out = tmp_path / "c.jsonl"
    assert "did you mean 'swap'" in refusal(scene_graphs=source, out=out, types=("swop",))
    assert "must end in .jsonl" in refusal(scene_graphs=source, out=tmp_path / "c.json")
    assert "no such file" in refusal(scene_graphs=tmp_path / "none.json", out=out)
    out.write_text("mine")
    assert "--overwrite" in refusal(scene_graphs=source, out=out)
    assert out.read_text() == "mine"
    generate(GenerateConfig(scene_graphs=source, out=out, workers=1, overwrite=True))
    assert len(out.read_text().splitlines()) == IMAGES


MANY = json.dumps({f"{k}": {"width": 1, "height": 1, "objects": {}} for k in range(30)})
BROKEN = '"x": {"width": 1, "height": 1, "objects": {"a": {"name": "dog",}}}'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "broken JSON at byte 0"),
        ("{}", "holds no images"),
        ('{"1": {"width": 1, "height": 1}}', "image '1': not a GQA scene graph"),
        ('{"1": {"width": 1, "height": 1, "objects": {}}', "broken JSON at byte 46"),
        ('{"1": {"width": 1 "height": 1, "objects": {}}}', "broken JSON at byte 18"),
        (f"{MANY[:-1]}, {BROKEN}}}", f"broken JSON at byte {len(MANY) + 2 + BROKEN.index(',}')}"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_input_that_is_not_gqa_is_one_line_and_leaves_no_output(
    tmp_path, content, expected, workers
):
    (tmp_path / "g.json").write_text(content)
    done = run(tmp_path, tmp_path / "g.json", tmp_path / "c.jsonl", workers)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "c.jsonl").exists()


def thing(name, x, attributes=(), relations=(), w=30):
    """relations: (predicate, id) pairs."""
    return {
        "name": name,
        "x": x,
        "y": 10,
        "w": w,
        "h": 30,
        "attributes": list(attributes),
        "relations": [{"name": predicate, "object": end} for predicate, end in relations],
    }


REAL = {
    "unicode": {
        "a": thing("café", 10, ["red"], [("to the left of", "b")]),
        "b": thing("  Türschild ", 200, ["blue"], [("to the right of", "a")]),
        "c": thing("狗", 300, ["braun"], [("在…旁边", "a")]),
        "d": thing("dog 🐕", 350, ["\u200b", "green"]),
    },
    "empty": {
        "a": thing("star", 10, ["", " ", "red"], [("near", "gone"), ("near", "a"), ("", "b")]),
        "b": thing("ring", 200, ["blue"], [("to the right of", "a")]),
        "c": thing("   ", 300, ["green"]),
    },
    "twice": {
        "a": thing("dog", 10, ["brown"], [("to the left of", "c")]),
        "b": thing("dog", 11, ["brown"]),
        "c": thing("cat", 200, ["black"], [("to the right of", "a")]),
        "d": thing("cup", 300, ["white"]),
        "e": thing("cup", 350, ["white"]),
    },
    "flat": {
        "a": thing("star", 10, ["red"], [("to the left of", "b")], w=0),
        "b": thing("ring", 200, ["blue"], [("to the right of", "a")], w=-5),
    },
    "nothing": {},
}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_real_graphs_hold_is_counted_and_stops_nothing(tmp_path, workers):
    content = {
        key: {"width": 500, "height": 400, "objects": objects} for key, objects in REAL.items()
    }
    source, out = tmp_path / "g.json", tmp_path / "c.jsonl"
    source.write_text(json.dumps(content, ensure_ascii=workers == 1), encoding="utf-8")
    done = run(tmp_path, source, out, workers)
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "c.stats.json").read_text())
    assert stats["images"] == len(REAL)
    assert stats["irregular"] == {
        "boxes without area": 2,
        "empty attributes": 1,
        "objects that may be annotated twice": 1,
        "objects without a name": 1,
        "relations of an object to itself": 1,
        "relations to a missing object": 1,
        "relations without a name": 1,
    }
    lines = out.read_text(encoding="utf-8").splitlines()
    captions = {c.image_id: c.groups for c in (decode(line) for line in lines)}
    assert list(captions) == list(REAL)
    assert not captions["nothing"]
    said = {
        key: [
            caption
            for group in groups
            for caption in (group.positive, *(n.caption for n in group.negatives))
        ]
        for key, groups in captions.items()
    }
    assert any("café" in caption and "türschild" in caption for caption in said["unicode"])
    assert any(caption.startswith("The star is") for caption in said["empty"])
    # One dog, boxed twice, is not counted.
    assert not [caption for caption in said["twice"] if "dogs" in caption]


def decode(line):
    return msgspec.json.decode(line, type=ImageCaptions)
