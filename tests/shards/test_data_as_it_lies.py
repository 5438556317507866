"""Data as people have it, from files to a trained step in two commands; and broken data."""

import csv
import io
import json
import os
import signal
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet

from hnc_ds import cli, train
from hnc_ds.installing import pip_install
from hnc_ds.shards.reader import ShardReader
from tests.shards.conftest import jpeg
from tests.shards.test_pack_resume import contents, index_of, killed_at_rename, run_pack

COLOURS = ("red", "black", "white", "brown", "grey", "yellow")
CAPTIONS = {f"{n:09}": f"A {name} dog chases a cat." for n, name in enumerate(COLOURS)}
NEGATIVES = {f"{n:09}": f"A {name} cat chases a dog." for n, name in enumerate(COLOURS)}
IMAGES = {key: jpeg(n) for n, key in enumerate(CAPTIONS)}
DEEPSPEED = {"train_batch_size": 2, "optimizer": {"type": "AdamW", "params": {"torch_adam": True}}}


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def of_img2dataset(key: str, **metadata: Any) -> dict[str, bytes]:
    """The files of one sample, with the metadata that img2dataset writes."""
    found = {"key": key, "status": "success", "error_message": None, "caption": CAPTIONS[key]}
    found |= {"url": f"https://x.org/{key}.png", "similarity": float("nan")} | metadata
    return {
        f"{key}.jpg": IMAGES[key],
        f"{key}.txt": CAPTIONS[key].encode(),
        f"{key}.json": json.dumps(found, indent=4).encode(),
    }


def tars(folder: Path) -> list[str]:
    """Three samples in each of two tars, with a table and statistics beside each."""
    keys = list(CAPTIONS)
    for number, own in enumerate((keys[:3], keys[3:])):
        files = [of_img2dataset(key) for key in own]
        write_tar(folder / f"cc3m/{number:05}.tar", {k: v for f in files for k, v in f.items()})
        rows = pyarrow.table({"url": ["https://x.org/a.jpg"], "caption": ["Of no image."]})
        parquet.write_table(rows, folder / f"cc3m/{number:05}.parquet")
        (folder / f"cc3m/{number:05}_stats.json").write_text("{}")
    return ["--captions", f"{folder}/cc3m"]


def hugging_face_rows(keys: list[str]) -> pyarrow.Table:
    """Rows as Hugging Face's datasets stores an image feature; texts in lists."""
    images = [{"bytes": IMAGES[key], "path": "image.png"} for key in keys]
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    texts = [[CAPTIONS[key]] for key in keys]
    return pyarrow.table({"image": pyarrow.array(images, image), "caption": texts})


def parquet_file(folder: Path) -> list[str]:
    path = folder / "train-00000-of-00001.parquet"
    parquet.write_table(hugging_face_rows(list(CAPTIONS)), path, row_group_size=2)
    return ["--captions", str(path)]


def parquet_of_names(folder: Path) -> list[str]:
    """A table whose images lie elsewhere, by their URLs."""
    files = image_folder(folder)
    urls = [f"http://images.example.org/train/{key}.jpg?size=full" for key in CAPTIONS]
    rows = pyarrow.table({"URL": urls, "TEXT": list(CAPTIONS.values())})
    parquet.write_table(rows, folder / "laion.parquet")
    return ["--captions", f"{folder}/laion.parquet", "--images", files]


def parquet_of_paths(folder: Path) -> list[str]:
    """An image feature that was not embedded: paths without bytes."""
    files = image_folder(folder)
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": None, "path": f"/home/them/images/{key}.jpg"} for key in CAPTIONS]
    rows = {"image": pyarrow.array(images, struct), "text": list(CAPTIONS.values())}
    parquet.write_table(pyarrow.table(rows), folder / "paths.parquet")
    return ["--captions", f"{folder}/paths.parquet", "--images", files]


def saved_to_disk(folder: Path) -> list[str]:
    """A DatasetDict of save_to_disk, with a cache that is not part of it."""
    keys = list(CAPTIONS)
    write_arrow(
        folder / "ds/train", {"data-00000-of-00002": keys[:3], "data-00001-of-00002": keys[3:]}
    )
    write_arrow(folder / "ds/test", {"data-00000-of-00001": keys[:1]})
    (folder / "ds/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (folder / "ds/train/cache-1234.arrow").write_bytes(b"a cache of map()")
    return ["--captions", f"{folder}/ds", "--split", "train"]


def write_arrow(folder: Path, keys_by_file: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True)
    for name, keys in keys_by_file.items():
        rows = hugging_face_rows(keys)
        with ipc.new_stream(folder / f"{name}.arrow", rows.schema) as file:
            file.write_table(rows, max_chunksize=2)
    listed = [{"filename": f"{name}.arrow"} for name in keys_by_file]
    (folder / "state.json").write_text(json.dumps({"_data_files": listed, "_split": folder.name}))


def image_folder(folder: Path) -> str:
    (folder / "images").mkdir()
    for key, content in IMAGES.items():
        (folder / f"images/{key}.jpg").write_bytes(content)
    return f"{folder}/images"


def karpathy(folder: Path) -> list[str]:
    images = [
        {"filename": f"{key}.jpg", "split": "train", "sentences": [{"raw": text, "tokens": []}]}
        for key, text in CAPTIONS.items()
    ]
    images.append({"filename": "none.jpg", "split": "test", "sentences": [{"raw": "Not here."}]})
    (folder / "dataset.json").write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    captions = ["--captions", f"{folder}/dataset.json", "--split", "train"]
    return [*captions, "--images", image_folder(folder)]


def coco(folder: Path) -> list[str]:
    images = [{"id": n, "file_name": f"{key}.jpg"} for n, key in enumerate(CAPTIONS)]
    said = [{"id": n, "image_id": n, "caption": t} for n, t in enumerate(CAPTIONS.values())]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": said}))
    return ["--captions", f"{folder}/coco.json", "--images", image_folder(folder)]


def negclip(folder: Path) -> list[str]:
    """NegCLIP's TSV: pandas writes an index, and lists as Python does."""
    with (folder / "train_neg_clip.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["", "title", "filepath", "neg_caption", "neg_image"])
        for n, (key, text) in enumerate(CAPTIONS.items()):
            writer.writerow([n, text, f"coco/{key}.jpg", repr([NEGATIVES[key]]), repr([1, 2])])
    return ["--captions", f"{folder}/train_neg_clip.tsv", "--images", image_folder(folder)]


def plain_csv(folder: Path) -> list[str]:
    with (folder / "mine.csv").open("w", newline="") as file:
        rows = [(f"x/{key}.jpg", text) for key, text in CAPTIONS.items()]
        csv.writer(file).writerows([("filepath", "title"), *rows])
    return ["--captions", f"{folder}/mine.csv", "--images", image_folder(folder)]


def json_lines(folder: Path) -> list[str]:
    rows = [
        {"image": f"{key}.jpg", "captions": [text], "negatives": [NEGATIVES[key]]}
        for key, text in CAPTIONS.items()
    ]
    (folder / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["--captions", f"{folder}/mine.jsonl", "--images", image_folder(folder)]


Kind = Callable[[Path], list[str]]
KINDS: dict[str, Kind] = {
    "img2dataset": tars,
    "parquet": parquet_file,
    "parquet-urls": parquet_of_names,
    "parquet-paths": parquet_of_paths,
    "save_to_disk": saved_to_disk,
    "karpathy": karpathy,
    "coco": coco,
    "negclip": negclip,
    "csv": plain_csv,
    "jsonl": json_lines,
}
WITH_NEGATIVES = {"negclip", "jsonl"}


def packed(shards: Path) -> dict[bytes, tuple[list[str], list[list[str]]]]:
    """Captions and their negatives, by the bytes of the image."""
    reader = ShardReader(shards)
    found = {}
    for number in range(len(reader)):
        groups = reader.sample(number).groups
        negatives = [[negative.caption for negative in group.negatives] for group in groups]
        found[reader.image_bytes(number)] = ([group.positive for group in groups], negatives)
    return found


Command = Callable[..., int]


@pytest.fixture
def hnc_ds(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``hnc-ds ARGUMENTS`` in this process; gives its status."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["hnc-ds", *arguments])
        return cli.main()

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_go_to_a_trained_step_in_two_commands(tmp_path, capsys, hnc_ds, kind):
    flags = KINDS[kind](tmp_path)
    out, run = tmp_path / "shards", tmp_path / "run"
    (tmp_path / "ds.json").write_text(json.dumps(DEEPSPEED))

    assert hnc_ds("pack", *flags, "--out", str(out)) == 0
    training = ["--shards", str(out), "--run", str(run), "--model", "tiny", "--steps", "1"]
    assert train.main([*training, "--deepspeed_config", f"{tmp_path}/ds.json"]) == 0

    negatives = NEGATIVES if kind in WITH_NEGATIVES else dict.fromkeys(CAPTIONS)
    assert packed(out) == {
        IMAGES[key]: ([CAPTIONS[key]], [[negatives[key]] if negatives[key] else []])
        for key in CAPTIONS
    }
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").open()] == [1]

    capsys.readouterr()
    assert hnc_ds("pack", *flags, "--out", str(out), "--check") == 0
    assert "all 6 images" in (line := capsys.readouterr().out)
    assert "packed already, 6 images" in line
    assert hnc_ds("inspect", str(out), "--verify") == 0


ARCHIVES = {"img2dataset": "cc3m", "parquet": "train-00000-of-00001.parquet", "save_to_disk": "ds"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHIVES)
def test_images_of_archives_are_packed_to_the_same_bytes_by_any_workers_and_after_a_kill(
    tmp_path, hnc_ds, kind
):
    flags = [*KINDS[kind](tmp_path), "--samples-per-shard", "4"]
    for workers in ("1", "2"):
        out = str(tmp_path / f"of{workers}")
        assert hnc_ds("pack", *flags, "--out", out, "--workers", workers) == 0
    whole = contents(tmp_path / "of1")
    assert [name for name in whole if name.endswith(".tar")] == [
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    assert contents(tmp_path / "of2") == whole

    # Renamed before are source.json and the first shard with its index.
    captions = ARCHIVES[kind] + ("/train" if kind == "save_to_disk" else "")
    killed = run_pack(tmp_path, killed_at_rename(3), captions=captions, images=())
    assert killed.wait() == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "out").glob("*.tar")} == {"shard-000000.tar"}
    first = (tmp_path / "out/shard-000000.tar").stat()
    assert run_pack(tmp_path, workers=2, captions=captions, images=()).wait() == 0
    assert (tmp_path / "out/shard-000000.tar").stat().st_ino == first.st_ino
    resumed = contents(tmp_path / "out")
    assert resumed.keys() == whole.keys()
    assert {n: c for n, c in resumed.items() if n != "index.json"} == {
        n: c for n, c in whole.items() if n != "index.json"
    }


def test_changed_archives_are_another_source(tmp_path, capsys, hnc_ds):
    flags = [*tars(tmp_path), "--out", f"{tmp_path}/out"]
    assert hnc_ds("pack", *flags) == 0
    assert hnc_ds("pack", *flags) == 0
    assert "nothing to do" in capsys.readouterr().out
    os.utime(tmp_path / "cc3m/00001.tar", ns=(1, 1))
    assert hnc_ds("pack", *flags) == 2
    assert "holds shards of other captions, images or settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pattern",
    [
        "cc3m/{00000..00001}.tar",
        "cc3m/*.tar",
        "cc3m/0000?.tar",
        "cc3m/00000.tar::TMP/cc3m/00001.tar",
    ],
)
def test_tars_of_a_pattern_are_packed_as_those_of_their_folder(tmp_path, hnc_ds, pattern):
    folder = tars(tmp_path)
    assert hnc_ds("pack", *folder, "--out", f"{tmp_path}/a") == 0
    captions = ["--captions", f"{tmp_path}/{pattern}".replace("TMP", str(tmp_path))]
    assert hnc_ds("pack", *captions, "--out", f"{tmp_path}/b") == 0
    name = "shard-000000.tar"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("kind", ARCHIVES)
def test_word_swaps_of_archives_are_packed_with_the_images_of_the_archives(tmp_path, hnc_ds, kind):
    flags = KINDS[kind](tmp_path)
    swaps = f"{tmp_path}/swaps.captions.jsonl.gz"
    assert hnc_ds("swap-words", *flags, "--types", "negclip_noun", "--out", swaps) == 0
    images = flags[1] + ("/train" if kind == "save_to_disk" else "")
    pack = ["pack", "--captions", swaps, "--images", images, "--out", f"{tmp_path}/out"]
    assert hnc_ds(*pack, "--check") == 0
    assert hnc_ds(*pack) == 0
    assert packed(tmp_path / "out") == {
        IMAGES[key]: ([CAPTIONS[key]], [[NEGATIVES[key]]]) for key in CAPTIONS
    }


def test_samples_that_cannot_be_used_are_counted_by_reason(tmp_path, capsys, hnc_ds):
    keys = list(CAPTIONS)
    files: dict[str, bytes] = {}
    for key in keys:
        files |= of_img2dataset(key)
    del files[f"{keys[0]}.jpg"]
    files[f"{keys[1]}.txt"], files[f"{keys[1]}.json"] = b" \n", b"{}"
    files[f"{keys[2]}.json"] = b'{"status": "failed_to_resize"}'
    files |= {"__meta__.json": b"of webdataset", "._x.jpg": b"of macOS", "README": b"of nobody"}
    write_tar(tmp_path / "00000.tar", files)
    assert hnc_ds("pack", "--captions", f"{tmp_path}/00000.tar", "--out", f"{tmp_path}/out") == 0
    printed = capsys.readouterr().out
    for what in ("an image", "a caption"):
        assert f"1 samples without {what}" in printed
    assert "1 samples whose status is not success" in printed
    assert packed(tmp_path / "out").keys() == {IMAGES[key] for key in keys[3:]}


@pytest.mark.parametrize("share", [1, 2])
def test_broken_texts_are_skipped_up_to_one_percent(tmp_path, capsys, hnc_ds, share):
    files: dict[str, bytes] = {}
    for number in range(100):
        files |= {f"{number}.jpg": jpeg(number), f"{number}.txt": f"It is {number}.".encode()}
    files |= {f"{number}.txt": b"\xff\xfe" for number in range(share)}
    write_tar(tmp_path / "a.tar", files)
    ended = hnc_ds("pack", "--captions", f"{tmp_path}/a.tar", "--out", f"{tmp_path}/out")
    said = capsys.readouterr()
    if share == 1:
        assert ended == 0
        assert "1 samples with a broken KEY.json or KEY.txt" in said.out
        assert index_of(tmp_path / "out")["samples"] == 99
    else:
        assert ended == 2
        assert "2 of 100 samples with a broken KEY.json or KEY.txt" in said.err


def test_keys_that_several_tars_have_are_told_apart_by_the_tars(tmp_path, hnc_ds):
    """DataComp's keys are unique, those of many other tars start anew."""
    for n, name in enumerate(("x/00000", "x/00001", "y/00000")):
        fields = {"caption": f"It is {n}.", "neg_caption": ["It is not."]}
        files = {"./0.jpg": jpeg(n), "./0.json": json.dumps(fields).encode()}
        write_tar(tmp_path / f"wds/{name}.tar", files)
    write_tar(tmp_path / "wds/y/00001.tar", {"0.jpg": jpeg(9), "1.txt": b"Of no image."})
    flags = ["pack", "--captions", f"{tmp_path}/wds", "--out", f"{tmp_path}/out"]
    assert hnc_ds(*flags) == 0
    negatives = [["It is not."]]
    assert packed(tmp_path / "out") == {jpeg(n): ([f"It is {n}."], negatives) for n in range(3)}
    reader = ShardReader(tmp_path / "out")
    assert [reader.sample(n).image_id for n in range(3)] == ["x/00000/0", "x/00001/0", "y/00000/0"]


def test_rows_of_one_name_are_of_one_image_and_must_hold_the_same(tmp_path, capsys, hnc_ds):
    images = [jpeg(0), jpeg(1), jpeg(0)]
    rows = {
        "filename": ["a.jpg", "b.jpg", "a.jpg"],
        "jpg": images,
        "txt": ["One.", "Two.", "Three."],
    }
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table(rows), path)
    flags = ["pack", "--captions", str(path), "--out", f"{tmp_path}/out"]
    assert hnc_ds(*flags) == 0
    assert packed(tmp_path / "out") == {
        jpeg(0): (["One.", "Three."], [[], []]),
        jpeg(1): (["Two."], [[]]),
    }
    parquet.write_table(pyarrow.table(rows | {"jpg": [*images[:2], jpeg(2)]}), path)
    assert hnc_ds(*flags, "--overwrite") == 2
    assert "rows.parquet (a.jpg) differ and have one name" in capsys.readouterr().err


def test_lists_of_a_fixed_length_are_lists(tmp_path, hnc_ds):
    """As Hugging Face's datasets writes a Sequence with a length."""
    of_two = pyarrow.list_(pyarrow.string(), 2)
    false = pyarrow.array([[f"Not {n}.", f"Nor {n}."] for n in range(2)], of_two)
    true = pyarrow.array([[f"It is {n}.", f"{n} it is."] for n in range(2)], of_two)
    rows = {"image": [jpeg(0), jpeg(1)], "caption": true, "negatives": false}
    parquet.write_table(pyarrow.table(rows), tmp_path / "rows.parquet")
    flags = ["pack", "--captions", f"{tmp_path}/rows.parquet", "--out", f"{tmp_path}/out"]
    assert hnc_ds(*flags, "--negative_columns", "negatives") == 0
    assert packed(tmp_path / "out") == {
        jpeg(n): ([f"It is {n}.", f"{n} it is."], [[f"Not {n}.", f"Nor {n}."]] * 2)
        for n in range(2)
    }


def test_rows_without_an_image_are_skipped_by_pack(tmp_path, capsys, hnc_ds):
    rows = {"image": [None, *map(jpeg, range(1, 100))], "text": [f"It is {n}." for n in range(100)]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "rows.parquet")
    flags = ["pack", "--captions", f"{tmp_path}/rows.parquet", "--out", f"{tmp_path}/out"]
    assert hnc_ds(*flags) == 0
    assert "1 skipped (1 no image, e.g. rows-0)" in capsys.readouterr().out
    assert index_of(tmp_path / "out")["samples"] == 99


def test_splits_of_tables_are_chosen_by_file_or_by_column(tmp_path, capsys, hnc_ds):
    keys = list(CAPTIONS)
    (tmp_path / "ds/data").mkdir(parents=True)
    for name, own in {"train": keys[:4], "validation": keys[4:]}.items():
        rows = hugging_face_rows(own)
        parquet.write_table(rows, tmp_path / f"ds/data/{name}-00000-of-00001.parquet")
    splits = ["restval" if n < 2 else "test" for n in range(6)]
    rows = hugging_face_rows(keys).append_column("split", [splits])
    parquet.write_table(rows, tmp_path / "flickr.parquet")
    for path, split, expected in (
        ("ds", "validation", keys[4:]),
        ("ds", "train", keys[:4]),
        ("flickr.parquet", "restval", keys[:2]),
    ):
        flags = [
            "--captions",
            f"{tmp_path}/{path}",
            "--split",
            split,
            "--out",
            f"{tmp_path}/{split}",
        ]
        assert hnc_ds("pack", *flags) == 0
        assert packed(tmp_path / split).keys() == {IMAGES[key] for key in expected}
    flags = ["--captions", f"{tmp_path}/flickr.parquet", "--split", "dev", "--out", f"{tmp_path}/o"]
    assert hnc_ds("pack", *flags) == 2
    assert "split 'dev' has no images" in (line := capsys.readouterr().err)
    assert "rows are of restval, test" in line


def test_archives_in_a_folder_of_images_are_not_searched(tmp_path, capsys, hnc_ds):
    """Such as the tar that the images were unpacked from."""
    folder = image_folder(tmp_path)
    write_tar(tmp_path / "images/all.tar", {"000000000.jpg": jpeg(99)})
    (tmp_path / "mine.csv").write_text("filepath,title\n000000000.jpg,A dog.\n")
    flags = ["--captions", f"{tmp_path}/mine.csv", "--images", folder, "--out", f"{tmp_path}/out"]
    assert hnc_ds("pack", *flags) == 0
    assert packed(tmp_path / "out").keys() == {IMAGES["000000000"]}


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def bad_tar(folder: Path) -> None:
    write_tar(folder / "bad.tar", of_img2dataset("000000000"))
    cut(folder / "bad.tar", 9000)


def bad_parquet(folder: Path) -> None:
    parquet.write_table(hugging_face_rows(list(CAPTIONS)), folder / "bad.parquet")
    cut(folder / "bad.parquet", 40)


def bad_arrow(folder: Path) -> None:
    write_arrow(folder / "ds", {"bad": list(CAPTIONS)})
    cut(folder / "ds/bad.arrow", 200)


def arrow_that_points_out(folder: Path) -> None:
    """The first image ends a gigabyte behind the end of the file."""
    write_arrow(folder / "ds", {"bad": list(CAPTIONS)})
    path, (first, second, *_) = folder / "ds/bad.arrow", map(len, IMAGES.values())
    ends = struct.pack("<3i", 0, first, first + second)
    assert ends in path.read_bytes()
    outside = struct.pack("<3i", 0, 1 << 30, 1 << 30)
    path.write_bytes(path.read_bytes().replace(ends, outside, 1))


def without_captions(folder: Path) -> None:
    rows = hugging_face_rows(list(CAPTIONS)).drop_columns("caption")
    parquet.write_table(rows.append_column("label", [range(6)]), folder / "bad.parquet")


def names_alone(folder: Path) -> None:
    rows = pyarrow.table({"image": ["a.jpg"], "caption": ["A cat."]})
    parquet.write_table(rows, folder / "bad.parquet")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated tar": ("bad.tar", bad_tar, "bad.tar: truncated or broken"),
    "tar that leads out": (
        "bad.tar",
        lambda folder: write_tar(folder / "bad.tar", {"../x.jpg": IMAGES["000000000"]}),
        "bad.tar: the member '../x.jpg' leads out of the folder",
    ),
    "tar without captions": (
        "bad.tar",
        lambda folder: write_tar(folder / "bad.tar", {"x.jpg": IMAGES["000000000"]}),
        "none of its 1 samples can be used (1 samples without a caption)",
    ),
    "tar twice": (
        "bad.tar",
        lambda folder: write_tar(folder / "bad.tar", {"x.jpg": b"1", "x.JPG": b"2"}),
        "bad.tar: truncated or broken",
    ),
    "no tar": ("bad.tar", lambda folder: (folder / "bad.tar").write_text("<html>"), "a web page"),
    "packed tar": (
        "bad.tar.gz",
        lambda folder: write_tar(folder / "bad.tar.gz", {}),
        "not a .tar, .parquet or .arrow file; unpack a compressed one",
    ),
    "absent tar": ("{0..1}.tar", lambda folder: write_tar(folder / "0.tar", {}), "1.tar: no such"),
    "no match": ("x/*.tar", lambda folder: None, "*.tar: no WebDataset tars, parquet"),
    "empty folder": ("bad", lambda folder: (folder / "bad").mkdir(), "no WebDataset tars"),
    "truncated parquet": ("bad.parquet", bad_parquet, "bad.parquet: cannot be read as parquet"),
    "truncated Arrow": ("ds", bad_arrow, "bad.arrow: cannot be read as an Arrow file"),
    "Arrow that points out": ("ds", arrow_that_points_out, "bad.arrow: cannot be read as an Arrow"),
    "no column of captions": (
        "bad.parquet",
        without_captions,
        "bad.parquet: no column of captions among 'label",
    ),
    "no images": ("bad.parquet", names_alone, "holds no images; name their folder with --images"),
    "no folder": (
        "bad.csv",
        lambda folder: (folder / "bad.csv").write_text("filepath,title\na.jpg,A cat.\n"),
        "holds no images; name their folder with --images",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_refused_in_one_line_and_nothing_is_written(tmp_path, capsys, hnc_ds, name):
    captions, make, message = BAD[name]
    make(tmp_path)
    flags = ["--captions", f"{tmp_path}/{captions}", "--out", f"{tmp_path}/out", "--workers", "2"]
    for check in ([], ["--check"]):
        assert hnc_ds("pack", *flags, *check) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "out").exists()


def test_without_pyarrow_parquet_names_the_extra(tmp_path, capsys, hnc_ds, monkeypatch):
    flags = parquet_file(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert hnc_ds("pack", *flags, "--out", f"{tmp_path}/out") == 2
    assert f"need pyarrow; {pip_install('parquet')}" in capsys.readouterr().err
