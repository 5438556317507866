"""hnc_ds.Shards: the images of shards with drawn captions, for a DataLoader."""

import shutil
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import pil_to_tensor

import hnc_ds
from hnc_ds.api.dataset import Samples
from hnc_ds.config import DataConfig
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.images import ImageSettings
from hnc_ds.shards.loader import EMPTY, TrainingData
from hnc_ds.shards.reader import ShardReader


def halved(image: Image.Image) -> torch.Tensor:
    """A preprocessing that workers can import."""
    return pil_to_tensor(image.resize((24, 24)))


class Words:
    """A tokenizer whose tokens are captions themselves, by number."""

    padding = 0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, captions: list[str]) -> torch.Tensor:
        self.seen = list(captions)
        return torch.arange(1, len(captions) + 1)[:, None]

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(token_TL), dtype=torch.int64)


def test_its_captions_are_those_of_a_training_with_the_seed(scene_shards: Path) -> None:
    folder, words = scene_shards / "train", Words()
    settings = ImageSettings(size=48, mean=(0, 0, 0), std=(1, 1, 1))
    data = TrainingData(folder, DataConfig(crop=1), 5, 96, range(96), settings, words)
    shards = hnc_ds.Shards(folder, seed=5)
    assert len(shards) == 96
    for epoch in (0, 1):
        batch = data.batch(epoch)
        shards.set_epoch(epoch)
        for row, number in enumerate(batch.image_index_B.tolist()):
            sample = shards[number]
            assert sample.caption == words.seen[batch.positive_B[row]]
            drawn = [words.seen[n] for n in batch.negative_BK[row].tolist() if n != EMPTY]
            assert sample.negatives == (*drawn, *[""] * (4 - len(drawn)))
            apart = pil_to_tensor(sample.image).int() - batch.images_B3RR[row].int()
            assert apart.abs().max() <= 2  # Pillow's decoder and torchvision's


def test_an_item_holds_what_was_packed(scene_shards: Path) -> None:
    shards, reader = hnc_ds.Shards(scene_shards / "val"), ShardReader(scene_shards / "val")
    keys = []
    for number, (image, caption, negatives, key) in enumerate(shards):
        groups = {group.positive: group for group in reader.sample(number).groups}
        assert tuple(groups.values()) == shards.groups(number)
        own = {negative.caption for negative in groups[caption].negatives}
        assert own >= {negative for negative in negatives if negative}
        assert image.tobytes() == Image.open(BytesIO(reader.image_bytes(number))).tobytes()
        keys.append(key)
    assert keys == [reader.key(number) for number in range(12)]
    with pytest.raises(IndexError):
        shards[12]


def test_types_and_slots_are_chosen(scene_shards: Path) -> None:
    shards = hnc_ds.Shards(scene_shards / "val", hard_negatives=1, negative_types={"swap": 1.0})
    drawn = 0
    for number in range(12):
        (caption,) = shards[number].negatives
        of_image = [n for group in shards.groups(number) for n in group.negatives]
        assert caption in {n.caption for n in of_image if n.type == "swap"} or not caption
        drawn += bool(caption)
    assert drawn > 6
    none = hnc_ds.Shards(scene_shards / "val", hard_negatives=0)
    assert none[0].negatives == ()
    with pytest.raises(hnc_ds.UserError, match=r"no negatives of type 'swop'; did you mean"):
        hnc_ds.Shards(scene_shards / "val", negative_types={"swop": 1.0})
    with pytest.raises(hnc_ds.UserError, match="no such folder; make shards"):
        hnc_ds.Shards(scene_shards / "test")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_workers(workers: int, scene_shards: Path) -> None:
    shards = hnc_ds.Shards(scene_shards / "val", halved, hard_negatives=3)
    loader = DataLoader(shards, batch_size=5, num_workers=workers, collate_fn=hnc_ds.Shards.collate)
    batches: list[Samples] = list(loader)
    assert [len(batch.key) for batch in batches] == [5, 5, 2]
    samples = list(shards)
    for number, batch in enumerate(batches):
        own = samples[5 * number : 5 * number + 5]
        assert torch.equal(batch.image, torch.stack([sample.image for sample in own]))
        assert batch.caption == [sample.caption for sample in own]
        assert batch.negatives == [n for sample in own for n in sample.negatives]
        assert batch.used.tolist() == [[n != "" for n in sample.negatives] for sample in own]
        assert batch.key == [sample.key for sample in own]


def test_torchs_own_batches_work_too(scene_shards: Path) -> None:
    shards = hnc_ds.Shards(scene_shards / "val", halved, hard_negatives=3)
    image, caption, negatives, key = next(iter(DataLoader(shards, batch_size=4, num_workers=1)))
    samples = [shards[number] for number in range(4)]
    assert image.shape == (4, 3, 24, 24)
    assert [*zip(*negatives, strict=True)] == [sample.negatives for sample in samples]
    assert [*caption] == [sample.caption for sample in samples]
    assert [*key] == [sample.key for sample in samples]


def test_images_without_preprocessing_and_slots_make_a_batch(scene_shards: Path) -> None:
    shards = hnc_ds.Shards(scene_shards / "val", hard_negatives=0)
    batch = hnc_ds.Shards.collate([shards[0], shards[1]])
    assert [image.size for image in batch.image] == [(48, 48), (48, 48)]
    assert batch.negatives == []
    assert batch.used.shape == (2, 0)


def test_a_damaged_image_is_named_by_a_worker(scene_shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scene_shards / "val", tmp_path / "val")
    at = read_shard_index(folder, "shard-000000.tar").samples[1]
    with (folder / "shard-000000.tar").open("r+b") as tar:
        tar.seek(at.image_offset)
        tar.write(bytes(at.image_bytes))
    shards = hnc_ds.Shards(folder, halved)
    assert shards[0].key == hnc_ds.Shards(scene_shards / "val")[0].key
    loader = DataLoader(shards, batch_size=1, num_workers=1)
    with pytest.raises(hnc_ds.UserError, match=rf"shard-000000\.tar:{at.key}: cannot be decoded"):
        list(loader)
