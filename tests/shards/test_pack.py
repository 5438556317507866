"""What pack writes, and which images it leaves out or refuses."""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError
from hnc_ds.images import read_rgb
from hnc_ds.shards.contents import inspect_shards
from hnc_ds.shards.inputs import check_pack
from hnc_ds.shards.pack import pack

GROUP = {
    "positive": "A red star.",
    "type": "attribute",
    "negatives": [{"caption": "A blue star.", "type": "attribute"}],
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def index_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_bytes())


def numbered(count: int) -> list[str]:
    return [f"{number:04}" for number in range(count)]


def test_plain_webdataset_reads_the_original_images_and_all_captions(packing, tmp_path):
    ids = numbered(6)
    packing.write(ids)
    pack(packing.config())

    lines = {line["image_id"]: line for line in map(json.loads, packing.captions.open())}
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [Path(tar).name for tar in tars] == ["shard-000000.tar", "shard-000001.tar"]
    assert [sample["__key__"] for sample in samples] == ids
    for image_id, sample in zip(ids, samples, strict=True):
        assert sample["jpg"] == (packing.images / f"{image_id}.jpg").read_bytes()
        assert json.loads(sample["json"]) == {
            **lines[image_id],
            "width": 24,
            "height": 16,
            "format": 1,
        }


def test_odd_and_long_ids_become_keys_that_tar_and_webdataset_agree_on(packing, tmp_path):
    ids = ["n1.2~x", "ein Bild", "ü" * 60, "z" * 180]
    packing.write(ids)
    pack(packing.config())

    samples = list(
        webdataset.WebDataset(str(tmp_path / "out" / "shard-000000.tar"), shardshuffle=False)
    )
    assert [json.loads(sample["json"])["image_id"] for sample in samples] == ids
    assert samples[0]["__key__"] == "n1%2E2%7Ex"
    assert all("jpg" in sample for sample in samples)


def test_recorded_offsets_point_at_the_members_and_sums_agree(packing, tmp_path):
    packing.write([*numbered(5), "y" * 150])
    pack(packing.config())

    index = index_of(tmp_path / "out")
    for shard in index["shards"]:
        tar = tmp_path / "out" / shard["file"]
        offsets = json.loads(tar.with_suffix(".json").read_bytes())["samples"]
        data = tar.read_bytes()
        with tarfile.open(tar) as archive:
            members = {member.name: member for member in archive.getmembers()}
        assert len(members) == 2 * len(offsets) == 2 * shard["samples"]
        for key, image_offset, image_bytes, json_offset, json_bytes, *sums in offsets:
            image, sample = members[f"{key}.jpg"], members[f"{key}.json"]
            assert (image.offset_data, image.size) == (image_offset, image_bytes)
            assert (sample.offset_data, sample.size) == (json_offset, json_bytes)
            assert data[image_offset : image_offset + 2] == b"\xff\xd8"
            parts = [(image_offset, image_bytes), (json_offset, json_bytes)]
            assert sums == [zlib.crc32(data[start : start + size]) for start, size in parts]
        assert shard["bytes"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
    assert (index["samples"], index["groups"]) == (6, 6)
    assert index["negatives"] == {"attribute": 6, "swap": 6}


def test_headers_say_nothing_of_when_and_where(packing, tmp_path):
    packing.write(numbered(1))
    pack(packing.config())

    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname) == ("", "")


def test_the_bytes_do_not_depend_on_the_number_of_processes(packing, tmp_path):
    packing.write(numbered(30))
    pack(packing.config("one", workers=1))
    pack(packing.config("three", workers=3))

    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_the_last_line_states_what_was_done(packing, tmp_path, capsys):
    packing.write(numbered(6))
    pack(packing.config())

    out = tmp_path / "out"
    size = sum(path.stat().st_size for path in out.glob("*.tar")) / 1e6
    assert capsys.readouterr().out == (
        f"pack: 6 images, 6 groups, 12 negatives in 2 shards ({size:.1f} MB) in {out}; 0 skipped\n"
    )


# ------------------------------------------------------------------ images left out


def damage(folder: Path, ids: Iterable[str]) -> None:
    for image_id in ids:
        path = folder / "images" / f"{image_id}.jpg"
        path.write_bytes(path.read_bytes()[:-200])


def test_half_a_percent_of_corrupt_images_is_skipped_and_reported(packing, tmp_path, capsys):
    packing.write(numbered(200))
    damage(tmp_path, ["0007"])
    pack(packing.config(samples_per_shard=50))

    index = index_of(tmp_path / "out")
    assert index["samples"] == 199
    assert index["skipped"] == {"corrupt image": 1}
    assert "1 skipped (1 corrupt image, e.g. 0007)" in capsys.readouterr().out


def test_two_percent_of_corrupt_images_are_refused_and_no_index_is_written(packing, tmp_path):
    packing.write(numbered(200))
    damage(tmp_path, ["0007", "0077", "0107", "0190"])
    with pytest.raises(UserError, match=r"4 of 200 images .*'corrupt image' \(e.g. 0007\).* 1%"):
        pack(packing.config(samples_per_shard=50))

    assert not (tmp_path / "out" / "index.json").exists()
    assert not list(tmp_path.glob("out/*.tmp"))


def test_repaired_images_are_packed_after_a_refusal(packing, tmp_path):
    packing.write(numbered(8))
    whole = (packing.images / "0003.jpg").read_bytes()
    damage(tmp_path, ["0003"])
    with pytest.raises(UserError, match="corrupt image"):
        pack(packing.config())
    (packing.images / "0003.jpg").write_bytes(whole)

    pack(packing.config())
    assert index_of(tmp_path / "out")["samples"] == 8


def grey_16() -> Image.Image:
    return Image.fromarray(np.tile(np.arange(64, dtype=np.uint16) * 1024, (48, 1)))


def of_colours() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").resize((64, 48), Image.Resampling.BICUBIC)


OTHERS = {
    "png.png": lambda path: of_colours().save(path),
    "called.jpg": lambda path: of_colours().save(path, "PNG"),
    "PALETTE.PNG": lambda path: of_colours().convert("RGB").quantize(32).save(path),
    "sixteen.Png": lambda path: grey_16().save(path),
    "lossy.webp": lambda path: of_colours().save(path),
    "page.TIFF": lambda path: of_colours().convert("RGB").convert("CMYK").save(path),
    "map.bmp": lambda path: of_colours().convert("1").save(path),
    "one.gif": lambda path: of_colours().convert("L").save(path),
}
JPEGS = ("Upper.JPG", "exif.jpeg", "progressive.Jpg")


def test_images_of_every_kind_are_packed_and_jpegs_as_they_are(packing, tmp_path, capsys):
    packing.write(["plain"])
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, save in OTHERS.items():
        save(packing.images / name)
    for name, options in zip(JPEGS, ({}, {"exif": turned}, {"progressive": True}), strict=True):
        of_colours().convert("RGB").save(packing.images / name, quality=80, **options)
    ids = [Path(name).stem for name in (*OTHERS, *JPEGS)]
    with packing.captions.open("a") as file:
        file.writelines(json.dumps({"image_id": i, "groups": [GROUP]}) + "\n" for i in ids)
    assert "8 of which are no JPEG" in check_pack(packing.config())
    pack(packing.config())
    assert "; 0 skipped; 8 encoded as JPEG\n" in capsys.readouterr().out
    pack(packing.config("again", workers=2))
    assert contents(tmp_path / "out") == contents(tmp_path / "again")

    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    packed = {s["__key__"]: s for s in webdataset.WebDataset(tars, shardshuffle=False)}
    for name in JPEGS:
        assert packed[Path(name).stem]["jpg"] == (packing.images / name).read_bytes()
    for name in OTHERS:
        made = Image.open(io.BytesIO(packed[Path(name).stem]["jpg"]))
        true = read_rgb((packing.images / name).read_bytes())
        assert (made.format, made.mode, made.size) == ("JPEG", "RGB", true.size)
        difference = np.asarray(made).astype(int) - np.asarray(true).astype(int)
        assert np.abs(difference).mean() < 4  # of 255; dithered colours are the worst
    assert index_of(tmp_path / "out")["reencoded"] == 8


@pytest.mark.parametrize(
    ("name", "size", "save", "reason"),
    [
        ("0100.gif", 9, {"save_all": True, "append_images": [Image.new("L", (9, 9))]}, "frames"),
        ("0100.tif", 9, {"save_all": True, "append_images": [Image.new("L", (9, 9))]}, "frames"),
        ("0100.png", 10_000, {}, "image too large"),
    ],
)
def test_images_of_no_use_are_skipped_by_their_fault(packing, tmp_path, name, size, save, reason):
    packing.write(numbered(200))
    (packing.images / "0100.jpg").unlink()
    Image.new("L", (size, size), 1).save(packing.images / name, **save)
    pack(packing.config(samples_per_shard=50))

    (found,) = index_of(tmp_path / "out")["skipped"]
    assert reason in found


# ------------------------------------------------------------------ tables


def test_a_table_of_negatives_is_packed_checked_and_resumed(packing, tmp_path, capsys):
    packing.write(["a", "b"])
    table = tmp_path / "table.tsv"
    table.write_text(
        "title\tfilepath\twrong\nA cup.\tx/a.jpg\t['A mug.', 'A jug.']\nA hat.\tx/b.jpg\tA cap.\n"
        "A red cup.\tx/a.jpg\tA blue cup.\n"
    )
    settings = {"captions": table, "negative_columns": ("wrong",), "samples_per_shard": 1}
    assert "all 2 images" in check_pack(packing.config(**settings))
    pack(packing.config(**settings, negative_type=("llm",)))
    assert index_of(tmp_path / "out")["negatives"] == {"llm": 4}
    assert index_of(tmp_path / "out")["groups"] == 3
    pack(packing.config(**settings, negative_type=("llm",)))
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds shards of other captions"):
        pack(packing.config(**settings))
    pack(packing.config("none", captions=table))
    assert "3 groups (3 without negatives), 0 negatives" in capsys.readouterr().out
    index = index_of(tmp_path / "none")
    assert (index["groups"], index["groups_without_negatives"], index["negatives"]) == (3, 3, {})
    assert "groups_without_negatives" not in index_of(tmp_path / "out")
    inspect_shards(InspectConfig(shards=str(tmp_path / "none"), verify=True))
    assert "3 groups (3 without negatives), 0 negatives in 1 shard" in capsys.readouterr().out
    table.write_text("title,filepath\n")
    with pytest.raises(UserError, match="holds no captions"):
        pack(packing.config("empty", captions=table))
    assert not (tmp_path / "empty").exists()


def test_the_named_splits_of_karpathys_file_are_packed(packing, tmp_path):
    packing.write(["a", "b"])
    listed = tmp_path / "dataset.json"
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": "A hat."}]}
        for n, split in (("a", "train"), ("b", "test"))
    ]
    listed.write_text(json.dumps({"images": images, "dataset": "coco"}))
    assert "all 1 images" in check_pack(packing.config(captions=listed, split=("train",)))
    pack(packing.config(captions=listed, split=("train",)))
    assert index_of(tmp_path / "out")["samples"] == 1
    with pytest.raises(UserError, match="holds shards of other captions, images or settings"):
        pack(packing.config(captions=listed))


# ------------------------------------------------------------------ folders


def test_images_are_found_in_several_folders_and_below_them(packing, tmp_path):
    packing.write(["a", "b", "c"])
    for name, place in {"a": "coco/train2014", "b": "coco/val2014", "c": "vg/x/y"}.items():
        (tmp_path / place).mkdir(parents=True)
        (packing.images / f"{name}.jpg").rename(tmp_path / place / f"{name}.jpg")
    coco, vg = tmp_path / "coco", tmp_path / "vg"
    ways = {
        "above": (coco, vg),
        "each": (coco / "train2014", coco / "val2014", vg / "x/y"),
        "colons": (Path(f"{coco / 'train2014'}:{coco / 'val2014'}"), vg),
    }
    for out, images in ways.items():
        pack(packing.config(out, images=images))
        assert index_of(tmp_path / out)["samples"] == 3
    one, *others = (contents(tmp_path / out) for out in ways)
    assert all(other["shard-000000.tar"] == one["shard-000000.tar"] for other in others)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        pack(packing.config("none", images=(coco, tmp_path / "nowhere")))


def test_ids_with_folders_mean_the_file_whose_path_ends_so(packing, tmp_path):
    for folder in ("train", "val/deep"):
        (packing.images / folder).mkdir(parents=True)
    files = ["train/1.jpg", "val/1.jpg", "2.jpg", "val/deep/3.jpg"]
    packing.write([file.removesuffix(".jpg") for file in files])
    ids = ["train/1", "val/1", "images/2", "deep/3.jpg"]
    packing.captions.write_text(
        "".join(json.dumps({"image_id": i, "groups": [GROUP]}) + "\n" for i in ids)
    )
    pack(packing.config())

    tar = tmp_path / "out" / "shard-000000.tar"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert [json.loads(sample["json"])["image_id"] for sample in samples] == ids
    assert [s["jpg"] for s in samples] == [(packing.images / f).read_bytes() for f in files]
    with tarfile.open(tar) as archive:
        assert not [name for name in archive.getnames() if "/" in name]


def test_one_name_in_two_folders_is_one_image_or_refused(packing, tmp_path):
    packing.write(["a"])
    more = tmp_path / "more" / "deep"
    more.mkdir(parents=True)
    (more / "a.jpg").write_bytes((packing.images / "a.jpg").read_bytes())
    pack(packing.config("same", images=(packing.images, more)))
    Image.new("RGB", (9, 9)).save(more / "a.jpg")
    pack(packing.config("direct", images=(packing.images, more.parent)))  # goes before those below
    Image.new("RGB", (9, 9)).save(packing.images / "a.png")
    pack(packing.config("jpeg"))  # goes before a PNG in its folder
    with pytest.raises(UserError, match=r"images/a\.jpg and .*deep/a\.jpg differ .*deep/a$"):
        pack(packing.config("other", images=(packing.images, more)))
    packing.captions.write_text(json.dumps({"image_id": "deep/a", "groups": [GROUP]}) + "\n")
    pack(packing.config("named", images=(packing.images, more.parent)))
    for out in ("same", "direct", "jpeg", "named"):
        index = index_of(tmp_path / out)
        assert (index["samples"], "reencoded" in index) == (1, False)


def test_links_are_followed_and_end(packing, tmp_path):
    packing.write(["a"])
    packing.images.rename(tmp_path / "elsewhere")
    packing.images.mkdir()
    (packing.images / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(packing.images)
    pack(packing.config())
    assert index_of(tmp_path / "out")["samples"] == 1


def test_a_few_missing_images_are_skipped_and_more_than_one_percent_refused(packing, tmp_path):
    packing.write(numbered(200))
    for image_id in ("0001", "0002"):
        (packing.images / f"{image_id}.jpg").unlink()
    pack(packing.config(samples_per_shard=50))
    assert index_of(tmp_path / "out")["skipped"] == {"no image": 2}

    (packing.images / "0003.jpg").unlink()
    with pytest.raises(UserError, match=r"3 of 200 images .*'no image' \(e.g. 0001\)"):
        pack(packing.config(samples_per_shard=50, overwrite=True))


def test_a_wrong_image_folder_is_noticed_at_the_first_shard(packing, tmp_path):
    packing.write(numbered(300))
    (packing.images).rename(tmp_path / "elsewhere")
    (packing.images).mkdir()
    with pytest.raises(UserError, match=r"has none of the 100 images of shard-000000.tar"):
        pack(packing.config(samples_per_shard=100))


def test_a_shard_of_which_nothing_is_left_is_not_in_the_index(packing, tmp_path):
    packing.write(numbered(200))
    damage(tmp_path, ["0005"])
    pack(packing.config(samples_per_shard=1))

    index = index_of(tmp_path / "out")
    assert len(index["shards"]) == 199
    assert not (tmp_path / "out" / "shard-000005.tar").exists()
    assert all(shard["samples"] == 1 for shard in index["shards"])


def test_images_are_found_by_jpeg_suffix_and_by_ids_that_carry_one(packing, tmp_path):
    packing.write(["a", "b"])
    (packing.images / "a.jpg").rename(packing.images / "a.jpeg")
    packing.captions.write_text(
        packing.captions.read_text().replace('"image_id": "b"', '"image_id": "b.jpg"')
    )
    pack(packing.config())

    assert index_of(tmp_path / "out")["samples"] == 2


@pytest.mark.parametrize(
    "escape", ["../secret", "/etc/secret", "..", "", "a/../b", "a\\b", "x" * 300]
)
def test_an_id_that_leaves_the_image_folder_is_refused(packing, tmp_path, escape):
    packing.write(["a"])
    (tmp_path / "secret.jpg").write_bytes((packing.images / "a.jpg").read_bytes())
    with packing.captions.open("a") as file:
        file.write(json.dumps({"image_id": escape, "groups": [GROUP]}) + "\n")
    with pytest.raises(UserError, match=r"image id .* names no file of"):
        pack(packing.config())

    assert not (tmp_path / "out").exists()


def test_an_id_that_occurs_twice_is_refused(packing):
    packing.write(["a", "b"])
    packing.captions.write_text(packing.captions.read_text() * 2)
    with pytest.raises(UserError, match=r"captions.jsonl: image a occurs twice"):
        pack(packing.config())


def test_images_without_captions_are_skipped_and_counted(packing, tmp_path):
    packing.write(["a", "b"])
    with packing.captions.open("a") as file:
        file.write('{"image_id": "c", "groups": []}\n')
    pack(packing.config())

    index = index_of(tmp_path / "out")
    assert (index["samples"], index["skipped"]) == (2, {"no captions": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "captions.jsonl: empty"),
        ('{"image_id": "c", "groups": []}\n', "captions.jsonl: holds no captions"),
        ('{"image_id": "c"}\n', "captions.jsonl: line 1: not an image's captions"),
        ("[1, 2]", "captions.jsonl: element 0: Expected `object`"),
    ],
)
def test_a_file_without_captions_is_refused_and_leaves_nothing(packing, tmp_path, text, message):
    packing.write(["a"])
    packing.captions.write_text(text)
    with pytest.raises(UserError, match=message):
        pack(packing.config())

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["captions.jsonl", "images"])
def test_missing_input_is_named(packing, tmp_path, missing):
    packing.write(["a"])
    (tmp_path / missing).rename(tmp_path / "gone")
    with pytest.raises(UserError, match=f"{missing}: no such"):
        pack(packing.config())
