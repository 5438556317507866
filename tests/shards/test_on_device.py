"""JPEGs that the device decodes: here a CPU stands in for it, with the same arithmetic after it."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.shards import images
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.images import (
    DeviceDecoder,
    ImageSettings,
    Jpeg,
    Place,
    check_gpu,
    compare_decoders,
    decode_image,
    encoded,
    training_view,
)
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import feed
from hnc_ds.training.feed import batches
from tests.shards.test_ahead import Letters, differing
from tests.shards.test_loader import leave_out_sums

CPU = torch.device("cpu")
SETTINGS = ImageSettings(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def make(folder: Path, **data: Any) -> TrainingData:
    return TrainingData(folder, DataConfig(**data), 5, 24, range(24), SETTINGS, Letters())


def read(data: TrainingData, step: int, workers: int = 0) -> Batch:
    (found,) = batches(data, range(step, step + 1), workers, pin=False)
    assert isinstance(found, Batch)
    return found


def photograph(height: int = 60, width: int = 80, seed: int = 0) -> bytes:
    """A JPEG of soft noise."""
    from io import BytesIO

    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    file = BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("crop", [0.5, 1.0])
def test_batches_are_those_of_a_cpu_but_for_rounding(scene_shards: Path, crop: float) -> None:
    folder = scene_shards / "train"
    plain, found = (read(make(folder, decode=how, crop=crop), 2) for how in ("cpu", "gpu"))
    assert set(differing(found, plain)) <= {"images_B3RR"}
    apart = (found.images_B3RR.int() - plain.images_B3RR.int()).abs()
    assert found.images_B3RR.dtype == torch.uint8
    assert apart.max() <= 6  # a CPU rounds and clamps between rows and columns, at sharp edges
    assert apart.float().mean() < 0.3


def test_they_are_the_same_for_any_workers_and_parts(
    scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(scene_shards / "train", decode="gpu", unrelated_negatives=1)
    whole = read(data, 3)
    for rows in (5, 24):
        monkeypatch.setattr(feed, "PART_ROWS", rows)
        assert differing(read(data, 3, workers=2), whole) == []


def test_a_neighbour_stands_in_for_bytes_that_are_not_those_that_were_packed(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    samples = read_shard_index(folder, "shard-000000.tar").samples
    with (folder / "shard-000000.tar").open("r+b") as tar:
        for sample in samples[::4]:
            tar.seek(sample.image_offset + sample.image_bytes // 2)
            tar.write(b"\0" * 9)
    plain, found = (read(make(folder, decode=how), 0) for how in ("cpu", "gpu"))
    assert len(plain.corrupt) > 2
    assert set(differing(found, plain)) <= {"images_B3RR"}


def test_images_of_which_nobody_knows_that_they_decode_are_decoded_by_the_worker(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    leave_out_sums(folder / "shard-000000.json")
    plain, found = (read(make(folder, decode=how), 1) for how in ("cpu", "gpu"))
    assert differing(found, plain) == []


def test_rows_keep_their_places_where_only_some_are_left_to_the_device() -> None:
    box = (3, 5, 50, 60)
    files = [photograph(seed=seed) for seed in range(4)]
    views = [training_view(decode_image(file), SETTINGS, 1.0, random.Random(0)) for file in files]
    images = [Jpeg(files[0], 60, 80), views[1], Jpeg(files[2], 60, 80, box), views[3]]
    decoder = DeviceDecoder(SETTINGS, CPU)
    found = decoder.joined([decoder.part(encoded(images, 32)), decoder.part(encoded([], 32))])
    assert found.shape == (4, 3, 32, 32)
    assert torch.equal(found[1], views[1])
    assert torch.equal(found[3], views[3])
    top, left, height, width = box
    cut = decode_image(files[2])[:, top : top + height, left : left + width]
    pillow = Image.fromarray(cut.permute(1, 2, 0).numpy()).resize((32, 32), Image.BICUBIC)
    expected = torch.from_numpy(np.asarray(pillow).copy()).permute(2, 0, 1)
    assert (found[2].int() - expected.int()).abs().float().mean() < 0.5
    assert (found[0].int() - views[0].int()).abs().float().mean() < 0.5


def test_what_the_device_cannot_decode_the_cpu_does_and_what_nobody_can_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [photograph(seed=seed) for seed in range(3)]
    real, calls = images._decode, []

    def picky(jpegs: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        calls.append(len(jpegs))
        if any(jpeg.numpy().tobytes() == files[1] for jpeg in jpegs):
            raise RuntimeError("nvjpegDecode failed: 8")
        return real(jpegs, device)

    part = encoded([Jpeg(file, 60, 80, (0, 0, 60, 80)) for file in files], 32)
    expected = DeviceDecoder(SETTINGS, CPU).part(part)
    monkeypatch.setattr(images, "_decode", picky)
    assert torch.equal(DeviceDecoder(SETTINGS, CPU).part(part), expected)
    assert calls == [3, 1, 1, 1]
    torn = encoded([Jpeg(files[0][:40], 60, 80)], 32)
    with pytest.raises(UserError, match="an image of the shards cannot be decoded"):
        DeviceDecoder(SETTINGS, CPU).part(torn)


def test_few_large_images_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PIXELS_AT_ONCE", 100)
    places = [Place(row, 0, 0, pixels, None) for row, pixels in enumerate((60, 40, 1, 500, 70, 20))]
    groups = [[place.row for place in group] for group in images._groups(places)]
    assert groups == [[0, 1], [2], [3], [4, 5]]


def test_a_device_that_decodes_otherwise_is_refused_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, real = photograph(), images._decode
    compare_decoders(SETTINGS, file, CPU)
    with pytest.raises(UserError, match="needs a CUDA device; this is cpu"):
        check_gpu(SETTINGS, file, CPU)
    wrong: dict[str, Any] = {
        "differ from the CPU's by": lambda images: [image.flip(0) for image in images],
        "differ from the CPU's by inf": lambda images: [image[:, 1:] for image in images],
    }
    for words, change in wrong.items():
        monkeypatch.setattr(
            images, "_decode", lambda jpegs, device, change=change: change(real(jpegs, device))
        )
        with pytest.raises(UserError, match=words):
            compare_decoders(SETTINGS, file, CPU)

    def absent(jpegs: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nmore")

    monkeypatch.setattr(images, "_decode", absent)
    with pytest.raises(UserError, match=r"cannot \(decode_jpegs_cuda: .* nvJPEG support\); leave"):
        compare_decoders(SETTINGS, file, CPU)
