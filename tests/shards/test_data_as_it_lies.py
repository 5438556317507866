"""Data as people have it, from files to a trained step in two commands; and broken data."""

import csv
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import webdataset
from pyarrow import ipc, parquet

from hnc_ds import cli, train
from hnc_ds.shards.reader import ShardReader
from tests.shards.conftest import jpeg
from tests.shards.test_pack_resume import contents, index_of, killed_at_rename, run_pack

CAPTIONS = {f"{n:09}": f"A red dog sits on table {n}." for n in range(6)}
NEGATIVES = {key: f"A red table sits on dog {key[-1]}." for key in CAPTIONS}
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
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    texts = [[CAPTIONS[key]] for key in keys]
    return pyarrow.table({"image": pyarrow.array(images, struct), "caption": texts})


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
    "save_to_disk": saved_to_disk,
    "karpathy": karpathy,
    "coco": coco,
    "negclip": negclip,
    "csv": plain_csv,
    "jsonl": json_lines,
}
WITH_NEGATIVES = {"negclip", "jsonl"}
ARCHIVES = ["img2dataset", "parquet", "save_to_disk"]


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
