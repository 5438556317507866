"""``hnc-ds pack`` with one worker and with two, against webdataset's ShardWriter."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import webdataset as wds

from hnc_ds.config import PackConfig
from hnc_ds.shards.format import read_index
from hnc_ds.shards.pack import pack
from speed.inputs import photograph, write_pack_input
from speed.timing import Check, Comparison, alternate

ONE, TWO, THEIRS = "hnc_ds: 1 worker", "hnc_ds: 2 workers", "webdataset.ShardWriter: 1 process"
IMAGES = 64
"""Different photographs; the images are these again and again."""


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s from JPEGs and captions to tars."""
    images = 8 if quick else 1024
    photographs = [photograph(seed) for seed in range(4 if quick else IMAGES)]
    config = replace(
        write_pack_input(folder, photographs, images), samples_per_shard=max(2, images // 16)
    )
    parallel = replace(config, out=folder / "shards-of-two", workers=2)
    peer = replace(config, out=folder / "shards-of-webdataset")
    variants = {
        ONE: _afresh(pack, config),
        TWO: _afresh(pack, parallel),
        THEIRS: _afresh(_write_with_webdataset, peer),
    }
    timings = alternate(variants, rounds=1 if quick else 5)
    ours, twins = read_index(config.out).shards, read_index(parallel.out).shards
    return Comparison(
        clock="wall",
        baseline=THEIRS,
        timings=timings,
        checks=(
            Check("shards that differ between 1 and 2 workers", len({*ours} ^ {*twins}), 0),
            Check("images that webdataset does not read back", _lost(config, images), 0),
        ),
        notes=(
            f"{images} images of 500x375 pixels in {len(ours)} shards; start of the worker "
            "processes included.",
            "The peer copies only. hnc_ds also decodes every image to its end, hashes captions "
            "and tars, writes offsets, and flushes each shard to the disk.",
        ),
        items="images",
        count=images,
    )


def _afresh(work: Callable[[PackConfig], None], config: PackConfig) -> Callable[[], None]:
    def run() -> None:
        shutil.rmtree(config.out, ignore_errors=True)
        work(config)

    return run


def _write_with_webdataset(config: PackConfig) -> None:
    config.out.mkdir()
    pattern = str(config.out / "shard-%06d.tar")
    with (
        config.captions.open("rb") as captions,
        wds.ShardWriter(pattern, maxcount=config.samples_per_shard, verbose=0) as writer,
    ):
        for line in captions:
            sample = json.loads(line)
            jpeg = (config.images[0] / f"{sample['image_id']}.jpg").read_bytes()
            writer.write({"__key__": sample["image_id"], "jpg": jpeg, "json": sample})


def _lost(config: PackConfig, images: int) -> int:
    """Images whose bytes do not come back."""
    tars = [str(path) for path in sorted(config.out.glob("*.tar"))]
    came_back = sum(
        sample["jpg"] == (config.images[0] / f"{sample['__key__']}.jpg").read_bytes()
        and msgspec.json.decode(sample["json"])["image_id"] == sample["__key__"]
        for sample in wds.WebDataset(tars, shardshuffle=False)
    )
    return images - came_back
