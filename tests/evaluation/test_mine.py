"""Nearest images: exact in any blocks, without the image itself, and found where planted."""

import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hnc_ds.config import MineConfig, PackConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import mine as module
from hnc_ds.evaluation.mine import find_neighbours, mine, nearest_rows
from hnc_ds.records import CaptionGroup, ImageCaptions
from hnc_ds.shards.images import ImageSettings
from hnc_ds.shards.order import NO_NEIGHBOR, read_neighbours
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

TWINS = [(2, 9), (5, 6), (0, 11)]
"""Samples that are one image under two ids."""


class Pixels:
    """Stands for a Clip: an image is its pixels, as far as they differ from grey."""

    image_settings = ImageSettings(size=8, mean=(0, 0, 0), std=(1, 1, 1))
    towers = torch.nn.Module()

    def eval(self) -> "Pixels":
        return self

    def encode_images(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images_B3RR.double().flatten(1) - 127.5, dim=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of noise in shards of five; some are there twice."""
    first_of = {second: first for first, second in TWINS}
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for number in range(12):
        (images / f"i{number:02}.jpg").write_bytes(noise(first_of.get(number, number)))
        lines.append(
            ImageCaptions(f"i{number:02}", (CaptionGroup("it is noise", "attribute", ()),))
        )
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    config = {"captions": captions, "images": (images,), "samples_per_shard": 5, "workers": 1}
    pack(PackConfig(**config, out=tmp_path / "shards"))
    return tmp_path / "shards"


def noise(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def settings(monkeypatch, images, tmp_path) -> Callable[..., MineConfig]:
    """Of the command, for a run whose model is Pixels."""
    monkeypatch.setattr(module, "load_trained", lambda path, device: Pixels())
    defaults = {"shards": images, "out": tmp_path / "near.safetensors", "workers": 0}
    return lambda **other: MineConfig(run=Path("runs/first"), **(defaults | other))


def brute_force(
    image_ND: torch.Tensor, identity: list[int], k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Every cosine, sorted by (most similar, lowest number)."""
    cosine = (image_ND.double() @ image_ND.double().T).tolist()
    rows, values = [], []
    for row, scores in enumerate(cosine):
        others = [i for i in range(len(cosine)) if identity[i] != identity[row]]
        best = sorted(others, key=lambda i: (-scores[i], i))[:k]
        empty = k - len(best)
        rows.append(best + [NO_NEIGHBOR] * empty)
        values.append([scores[i] for i in best] + [0.0] * empty)
    return rows, values


@pytest.mark.parametrize(("queries", "candidates"), [(1, 1), (7, 4), (16, 61), (64, 5), (99, 99)])
def test_blocks_of_any_size_find_what_brute_force_finds_ties_included(queries, candidates):
    """Small whole numbers, so that every cosine is exact and many are equal."""
    drawn = torch.randint(-3, 4, (61, 4), generator=torch.Generator().manual_seed(3))
    image_ND = drawn.float() / 8
    identity = [row // 2 if row < 10 else row for row in range(61)]
    found = nearest_rows(
        image_ND, torch.tensor(identity), 6, queries=queries, candidates=candidates
    )
    rows, cosines = brute_force(image_ND, identity, 6)
    assert found[0].tolist() == rows
    assert found[1].tolist() == cosines
    tied = sum(len(set(values)) < len(values) for values in cosines)
    assert tied > 30


def test_embeddings_as_models_make_them_have_the_neighbours_of_brute_force():
    drawn = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    image_ND = torch.nn.functional.normalize(drawn, dim=1)
    row_NK, cosine_NK = nearest_rows(image_ND, torch.arange(300), 8, queries=77, candidates=90)
    rows, cosines = brute_force(image_ND, list(range(300)), 8)
    np.testing.assert_allclose(cosine_NK, cosines, rtol=0, atol=1e-6)
    assert (row_NK == np.array(rows)).mean() > 0.999  # rounding may exchange two


def test_no_more_than_a_block_of_cosines_is_in_memory(monkeypatch):
    sizes, ranks = [], module._ranks
    monkeypatch.setattr(
        module, "_ranks", lambda c, first: sizes.append(c.numel()) or ranks(c, first)
    )
    nearest_rows(torch.eye(100), torch.arange(100), 2, queries=8, candidates=16)
    assert max(sizes) == 8 * 16
    assert sum(sizes) == 100 * 100


def test_where_there_are_fewer_others_than_asked_for_the_rest_is_nobody():
    row_NK, cosine_NK = nearest_rows(torch.eye(3), torch.tensor([0, 1, 0]), 4)
    assert row_NK.tolist() == [[1, -1, -1, -1], [0, 2, -1, -1], [1, -1, -1, -1]]
    assert (cosine_NK == 0).all()


def test_planted_duplicates_are_each_others_nearest(settings, images):
    config = settings(k=3)
    mine(config)
    found = read_neighbours(config.out, ShardReader(images))
    for first, second in TWINS:
        assert found.nearest_NK[first, 0] == second
        assert found.nearest_NK[second, 0] == first
        assert found.cosine_NK[[first, second], 0].tolist() == pytest.approx([1, 1])
    others = set(range(12)) - {number for pair in TWINS for number in pair}
    assert (found.cosine_NK[sorted(others), 0] < 0.9).all()
    assert (found.nearest_NK != np.arange(12)[:, None]).all()


def test_the_file_says_what_it_is_of_and_the_line_how_similar(settings, images, capsys):
    config = settings()
    mine(config)
    found = read_neighbours(config.out, ShardReader(images))
    assert (found.mined.model, found.mined.k) == ("first", 8)
    assert found.nearest_NK.shape == (12, 8)
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    assert printed.startswith("mine: 8 nearest images by first, 12 of 12 are near another; mean")
    nearest = found.cosine_NK[:, 0].mean()
    assert f"of the nearest {nearest:.3f}; 0 unreadable; wrote {config.out}" in printed


def test_the_file_has_the_same_bytes_for_any_batch_and_workers(settings, tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "new" / "two.safetensors"
    mine(settings(out=one, batch=1))
    mine(settings(out=other, batch=5, workers=2))
    assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in other.parent.iterdir()] == [other.name]


def test_an_unreadable_image_has_no_neighbours_and_is_nobodys(images):
    reader = ShardReader(images)
    samples = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)
    embedded = module.EmbeddedImages(samples, (3,), torch.eye(11))
    found = find_neighbours(embedded, reader, 10, "m")
    assert (found.nearest_NK[3] == NO_NEIGHBOR).all()
    for sample in samples:
        assert found.nearest_NK[sample].tolist() == [other for other in samples if other != sample]


def test_samples_of_one_key_count_as_one_image(images, monkeypatch):
    reader = ShardReader(images)
    monkeypatch.setattr(reader, "key", lambda sample: f"i{sample // 2}")
    embedded = module.EmbeddedImages(tuple(range(12)), (), torch.ones(12, 1))
    found = find_neighbours(embedded, reader, 2, "m")
    assert found.nearest_NK[0].tolist() == [2, 3]
    assert found.nearest_NK[5].tolist() == [0, 1]
    monkeypatch.setattr(reader, "key", lambda sample: "i0")
    with pytest.raises(UserError, match="holds no two images that could be similar"):
        find_neighbours(embedded, reader, 2, "m")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give either a run or --model"),
        ({"run": "runs/first", "model": "tiny"}, "give either a run or --model"),
        ({"run": "runs/first", "pretrained": "openai"}, "a run has its own weights"),
        ({"model": "tiny", "k": 0}, "k is 0; it must be 1 or more"),
    ],
)
def test_settings_that_name_no_model_or_two_are_refused(tmp_path, flags, message):
    given = {**flags, "run": Path(flags["run"])} if "run" in flags else flags
    with pytest.raises(UserError, match=message):
        MineConfig(shards=tmp_path, out=tmp_path / "near.safetensors", **given)


def test_random_weights_and_other_suffixes_are_refused(images, tmp_path):
    config = {"shards": images, "model": "tiny"}
    with pytest.raises(UserError, match="--model tiny has random weights without --pretrained"):
        mine(MineConfig(**config, out=tmp_path / "near.safetensors"))
    with pytest.raises(UserError, match=r"near\.npz; name a file that ends in \.safetensors"):
        mine(MineConfig(**config, out=tmp_path / "near.npz"))


def test_an_open_clip_folder_can_be_mined_with(images, tmp_path, capsys):
    """A model named by --model, here one that has its weights in a folder."""
    model = module.load_model(module.ModelConfig(), seed=1)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "open_clip_config.json").write_bytes(msgspec.json.encode(model.config))
    save_file(model.state_by_open_clip_name(), folder / "open_clip_model.safetensors")
    out = tmp_path / "near.safetensors"
    mine(MineConfig(model=f"local-dir:{folder}", shards=images, out=out, k=1))
    found = read_neighbours(out, ShardReader(images))
    assert all(found.nearest_NK[first, 0] == second for first, second in TWINS)
    assert f"by local-dir:{folder}" in capsys.readouterr().out
