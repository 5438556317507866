"""From the start of a resumed run to its first batch, in the middle of an epoch of 1,000 shards."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import open_clip
import torch
import webdataset as wds
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image

from hnc_ds.config import DataConfig
from hnc_ds.model.text import Tokenizer
from hnc_ds.shards.images import ImageSettings
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.shards.order import SampleOrder
from speed.inputs import packed, photograph, write_pack_input
from speed.timing import Check, Comparison, alternate

SETTINGS = ImageSettings(224, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
DATA = DataConfig(hard_negatives=0)  # one caption an image, as the peer has
SEED = 0
OURS, THEIRS = "hnc_ds", "webdataset: skip to the same place"


def measure(folder: Path, quick: bool) -> Comparison:
    """Seconds until the first batch; index, offsets and tars are opened anew each time."""
    torch.set_num_threads(1)
    shards, per_shard = (10, 4) if quick else (1000, 16)
    batch = 4 if quick else 64
    tiny = [photograph(seed, 32, 24) for seed in range(8)]
    config = write_pack_input(folder, tiny, shards * per_shard, most_captions=2)
    out = packed(replace(config, samples_per_shard=per_shard))
    step = shards * per_shard // 2 // batch
    tokenize = open_clip.get_tokenizer("ViT-B-32")

    def ours() -> Batch:
        own = Tokenizer(tokenize, tokenize.context_length, trim=False)
        data = TrainingData(out, DATA, SEED, batch, range(batch), SETTINGS, own)
        first = data.batch(step)
        data.reader.close()
        return first

    variants: dict[str, Callable[[], object]] = {
        OURS: ours,
        THEIRS: lambda: _theirs(out, step * batch, batch, tokenize),
    }
    return Comparison(
        clock="wall",
        baseline=THEIRS,
        timings=alternate(variants, rounds=2 if quick else 5),
        checks=_right_place(ours(), [per_shard] * shards, step * batch),
        notes=(
            f"{shards} shards of {per_shard} tiny images; first batch of {batch}, decoded, "
            "cropped to 224 pixels and tokenised; one process, files in the page cache, no model "
            "loaded.",
            "The peer is made as cheap as it can be: shards in a seeded order, no shuffle buffer, "
            "nothing decoded while skipping. Its time grows with what is skipped.",
        ),
    )


def _theirs(
    shards: Path, skipped: int, batch: int, tokenize: Callable[[list[str]], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and tokens of the first batch after ``skipped`` samples of a shuffled stream."""
    transform = open_clip.image_transform(SETTINGS.size, is_train=True)
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    random.Random(SEED).shuffle(tars)
    stream = iter(wds.WebDataset(tars, shardshuffle=False))
    samples = list(islice(stream, skipped, skipped + batch))
    images = [transform(Image.open(io.BytesIO(sample["jpg"]))) for sample in samples]
    captions = [json.loads(sample["json"])["groups"][0]["positive"] for sample in samples]
    return torch.stack(images), tokenize(captions)


def _right_place(first: Batch, shard_sizes: list[int], done: int) -> tuple[Check, ...]:
    """The resumed batch has what an uninterrupted run has there, and nothing from before."""
    order = SampleOrder(shard_sizes, SEED, DATA.shuffle_shards)
    before = {visit.sample for visit in order.visits(0, done)}
    due = {visit.sample for visit in order.visits(done, len(first.images_B3RR))}
    drawn = set(first.image_index_B.tolist())
    return (
        Check("samples of the first batch that the epoch had already", len(drawn & before), 0),
        Check("samples of the first batch that were not due there", len(drawn ^ due), 0),
    )
