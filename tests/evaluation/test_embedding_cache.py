"""What a model encoded is read the next time, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import Corruption, ShardImages
from hnc_ds.evaluation.encoder import EmbeddingCache, Encoder
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.shards.reader import ShardReader

CPU = torch.device("cpu")
CAPTIONS = ["a red field", "a blue one"]


@pytest.fixture
def reader(make_shards: Callable[[dict[str, str]], Path], damage: Callable[[Path, int], None]):
    shards = make_shards({f"{i:03d}": ("red", "blue", "lime")[i % 3] for i in range(150)})
    damage(shards, 70)
    return ShardReader(shards)


def encoder(clip: Clip, folder: Path | None) -> Encoder:
    cache = None if folder is None else EmbeddingCache(folder, clip, CPU)
    return Encoder(clip, CPU, batch=64, workers=1, cache=cache)


def test_what_is_kept_is_what_was_encoded_and_is_not_encoded_again(
    reader: ShardReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, folder = load_model(ModelConfig(), seed=0).eval(), tmp_path / "kept"
    plain, texts = encoder(clip, None).shards(reader), encoder(clip, None).texts(CAPTIONS)
    encoder(clip, folder).shards(reader)
    encoder(clip, folder).texts(CAPTIONS)
    assert len(list(folder.iterdir())) == 2

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Clip, "encode_images", never)
    monkeypatch.setattr(Clip, "encode_texts", never)
    again = encoder(clip, folder).shards(reader)
    assert torch.equal(again.image_ND, plain.image_ND)
    assert (again.samples, again.unreadable) == (plain.samples, plain.unreadable) != ((), ())
    text_TD, too_long = encoder(clip, folder).texts(CAPTIONS)
    assert torch.equal(text_TD, texts[0])
    assert too_long == texts[1]


def test_other_weights_images_and_captions_are_other_files(
    reader: ShardReader, tmp_path: Path
) -> None:
    clip, folder = load_model(ModelConfig(), seed=0).eval(), tmp_path / "kept"
    first = encoder(clip, folder)
    first.texts(CAPTIONS)
    first.texts(CAPTIONS[::-1])  # rows are in their order
    clean = first.images(ShardImages(reader))
    worse = first.images(ShardImages(reader), Corruption("gaussian_noise", 5, 0))
    assert not torch.equal(clean.image_ND, worse.image_ND)
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("moved", ["image", "text", None])
def test_models_that_differ_in_one_tower_share_what_the_other_one_gives(
    reader: ShardReader, tmp_path: Path, moved: str | None
) -> None:
    clip, folder = load_model(ModelConfig(), seed=0).eval(), tmp_path / "kept"
    source, first = ShardImages(reader), encoder(clip, folder)
    images, (texts, _) = first.images(source), first.texts(CAPTIONS)
    with torch.no_grad():
        clip.towers.logit_scale.add_(1)
        for name, parameter in clip.towers.named_parameters():
            if moved and name != "logit_scale" and name.startswith("visual.") == (moved == "image"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    again = encoder(clip, folder)
    assert torch.equal(again.images(source).image_ND, images.image_ND) == (moved != "image")
    assert torch.equal(again.texts(CAPTIONS)[0], texts) == (moved != "text")
    assert len(list(folder.iterdir())) == 2 + (moved is not None)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    clip, folder = load_model(ModelConfig(), seed=0).eval(), tmp_path / "kept"
    encoder(clip, folder).texts(CAPTIONS)
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:20])
    with pytest.raises(UserError, match=rf"{kept.name}: truncated or broken .*; remove it"):
        encoder(clip, folder).texts(CAPTIONS)
    encoder(clip, folder.with_name("whole")).texts(CAPTIONS)
    (whole,) = folder.with_name("whole").iterdir()
    sound = whole.read_bytes()
    for place in (len(sound) - 1, sound.index(b"F32") + 2, len(sound) - 40):  # a bit of each part
        damaged = bytearray(sound)
        damaged[place] ^= 1
        whole.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{whole.name}: .*; remove it"):
            encoder(clip, folder.with_name("whole")).texts(CAPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"choose another (--cache|place)"):
        encoder(clip, tmp_path / "file").texts(CAPTIONS)
