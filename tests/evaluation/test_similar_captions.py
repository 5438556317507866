"""Captions of similar images as negatives: exchanged, so balanced, and not true of the image."""

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from hnc_ds.config import MineConfig, PackConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import mine as module
from hnc_ds.evaluation.mine import mine
from hnc_ds.evaluation.similar_captions import TYPE, TrueCaptions, content_words, exchanges
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative
from hnc_ds.shards.order import Mined, Neighbours
from hnc_ds.shards.pack import pack
from tests.evaluation.test_mine import Pixels, noise

THINGS = ("dog", "goat", "cat", "bull", "cow", "pig", "hen", "duck", "lamb", "fox")


def true_captions(*images: tuple[str, ...]) -> TrueCaptions:
    """Captions of images; two are as similar as any other two, but for captions of one image."""
    texts = [caption for image in images for caption in image]
    ends = np.cumsum([0, *map(len, images)]).tolist()
    of_image = [range(*pair) for pair in pairwise(ends)]
    of_caption = np.repeat(np.arange(len(images)), [len(image) for image in images])
    text_CD = np.hstack([0.6 * np.eye(len(texts)), 0.8 * np.eye(len(images))[of_caption]])
    return TrueCaptions(of_image, texts, text_CD.astype(np.float32))


def near(*rows: tuple[int, ...]) -> Neighbours:
    """Neighbours by row, each 0.1 less similar than the one before it."""
    nearest_NK = np.array(rows, dtype=np.int32)
    cosine_NK = np.tile(1 - np.arange(nearest_NK.shape[1], dtype=np.float32) / 10, (len(rows), 1))
    return Neighbours(nearest_NK, cosine_NK, Mined("", "m", nearest_NK.shape[1]))


def exchanged(captions: TrueCaptions, neighbours: Neighbours, most: int = 1) -> list[set[str]]:
    found = exchanges(captions, neighbours, most)
    return [{captions.texts[c], captions.texts[d]} for c, d in found]


def test_captions_are_exchanged_between_similar_images_alone():
    captions = true_captions(("dog",), ("cat",), ("cow",), ("pig",))
    found = exchanged(captions, near((1,), (0,), (3,), (2,)), most=3)
    assert found == [{"dog", "cat"}, {"cow", "pig"}]


def test_the_most_similar_images_come_first_and_no_caption_has_more_than_it_may():
    captions = true_captions(("dog",), ("cat",), ("cow",))
    neighbours = near((1, 2), (0, 2), (0, 1))
    neighbours.cosine_NK[:] = [[0.5, 0.9], [0.5, 0.4], [0.9, 0.4]]
    assert exchanged(captions, neighbours) == [{"dog", "cow"}]
    assert exchanged(captions, neighbours, 2) == [{"dog", "cow"}, {"dog", "cat"}, {"cat", "cow"}]


def test_captions_of_an_image_go_to_different_images_before_they_go_to_one():
    captions = true_captions(("dog", "goat"), ("cat", "bull"), ("cow", "pig"))
    found = list(exchanges(captions, near((1, 2), (0, 2), (0, 1)), most=1))
    assert sorted({c // 2, d // 2} for c, d in found) == sorted([{0, 1}, {0, 2}, {1, 2}])
    assert Counter(c for pair in found for c in pair) == dict.fromkeys(range(6), 1)


def test_of_two_images_the_most_similar_captions_are_exchanged():
    captions = true_captions(("dog", "goat"), ("cat", "bull"))
    captions.text_CD[2] += 0.2 * captions.text_CD[1]
    assert exchanged(captions, near((1,), (0,)))[0] == {"goat", "cat"}


def test_what_may_be_true_of_the_other_image_is_not_exchanged():
    """By its words, in any caption of the other image; here the words of a caption are a part."""
    images = ("two dogs running",), ("A dog runs at two goats.", "hen")
    assert exchanged(true_captions(*images), near((1,), (0,)), 9) == []
    assert exchanged(true_captions(*images[::-1]), near((1,), (0,)), 9) == []
    images = ("two dogs running",), ("A dog sits at two goats.", "hen")
    assert len(exchanged(true_captions(*images), near((1,), (0,)), 9)) == 2


@pytest.mark.parametrize(
    ("dog", "found"), [(0.75, [{"goat", "bull"}]), (0.4, [{"dog", "cat"}, {"goat", "bull"}])]
)
def test_captions_as_similar_as_those_of_one_image_are_not_exchanged(dog, found):
    """The cat is as similar to the dog as given; captions of one image are by 0.53 and 0.61."""
    captions = true_captions(("dog", "goat"), ("cat", "bull"))
    assert captions.median_cosine() == pytest.approx(0.64)
    cat = (1 - dog**2) ** 0.5
    captions.text_CD[2] = dog * captions.text_CD[0] + cat * captions.text_CD[2]
    assert captions.median_cosine() == pytest.approx(0.32 + 0.32 * cat, abs=1e-6)
    assert exchanged(captions, near((1,), (0,))) == found


def test_images_with_one_caption_are_judged_by_words_alone():
    captions = true_captions(("dog",), ("cat",))
    captions.text_CD[1] = captions.text_CD[0]
    assert captions.median_cosine() == np.inf
    assert exchanged(captions, near((1,), (0,))) == [{"dog", "cat"}]


def test_a_caption_has_no_negative_twice():
    captions = true_captions(("dog",), ("cat",), ("cat",))
    assert exchanged(captions, near((1, 2), (0, 2), (0, 1)), 3) == [{"dog", "cat"}]


def test_content_words_are_stems_without_function_words():
    assert content_words("The two dogs are running into a lake.") == {"two", "dog", "run", "lak"}
    assert content_words("A dog runs at the lake") == {"dog", "run", "lak"}


def embed(encoder, captions):
    """Stands for Encoder.texts: a caption is its words."""
    text_TD = torch.zeros(len(captions), len(THINGS))
    for row, caption in enumerate(captions):
        text_TD[row, [THINGS.index(word) for word in caption.split()]] = 1
    return torch.nn.functional.normalize(text_TD, dim=1), 0


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Of the command, for twelve images of noise with three captions, one with a word swap."""
    (tmp_path / "images").mkdir()
    lines = []
    for i in range(12):
        (tmp_path / "images" / f"i{i:02}.jpg").write_bytes(noise(i))
        own = [f"{THINGS[i % 10]} {THINGS[(3 * i + k + 1) % 10]}" for k in range(3)]
        groups = [CaptionGroup(caption, "caption", ()) for caption in dict.fromkeys(own)]
        swap = Negative("swapped", "negclip_noun", ("a", "b"), open_world=True)
        groups[0] = msgspec.structs.replace(groups[0], negatives=(swap,))
        lines.append(ImageCaptions(f"i{i:02}", tuple(groups)))
    packed(tmp_path, tmp_path / "captions.jsonl", lines)
    monkeypatch.setattr(module, "load_trained", lambda path, device: Pixels())
    monkeypatch.setattr(module.Encoder, "texts", embed)
    defaults = {"shards": tmp_path / "shards", "out": tmp_path / "near.safetensors", "workers": 0}
    return lambda **other: MineConfig(run=Path("runs/first"), **(defaults | other))


def packed(folder: Path, captions: Path, lines: list[ImageCaptions]) -> None:
    captions.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    images = (folder / "images",)
    given = {"captions": captions, "images": images, "samples_per_shard": 5, "workers": 1}
    pack(PackConfig(**given, out=folder / "shards", overwrite=True))


def read(path: Path) -> list[ImageCaptions]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [msgspec.json.decode(line, type=ImageCaptions) for line in content.splitlines()]


def test_every_caption_is_as_often_a_negative_as_it_has_negatives(settings, tmp_path, capsys):
    out = tmp_path / "new" / "similar.captions.jsonl.gz"
    mine(settings(captions_out=out, per_caption=2))
    positives, negatives, pairs = Counter(), Counter(), Counter()
    of = {image.image_id: image for image in read(out)}
    for image in of.values():
        true = {group.positive for group in image.groups}
        for group in image.groups:
            own = [n for n in group.negatives if n.type == TYPE]
            assert all(n.open_world and n.caption not in true for n in own)
            assert len({n.caption for n in own}) == len(own) <= 2
            positives[group.positive] += len(own)
            negatives.update(n.caption for n in own)
            pairs.update((group.positive, n.caption) for n in own)
    assert positives == negatives
    assert all(pairs[c, d] == pairs[d, c] for c, d in pairs)  # any ranking of texts: one half
    assert positives.total() > 36
    assert of["i03"].groups[0].negatives[0].type == "negclip_noun"
    stats = json.loads((out.parent / "similar.captions.stats.json").read_text())
    assert stats["negatives"] == {TYPE: positives.total(), "negclip_noun": 12}
    assert stats["settings"]["mined"]["model"] == "first"
    assert f"{TYPE} {positives.total()}" in capsys.readouterr().out


def test_a_caption_without_a_similar_one_keeps_its_place_and_is_counted(settings, tmp_path):
    out = tmp_path / "similar.captions.jsonl"
    mine(settings(captions_out=out, k=1))
    groups = [group for image in read(out) for group in image.groups]
    without = sum(not any(n.type == TYPE for n in group.negatives) for group in groups)
    stats = json.loads((tmp_path / "similar.captions.stats.json").read_text())
    assert 0 < without < len(groups)
    assert stats["irregular"] == {"captions without a caption of a similar image": without}
    assert stats["images"] == 12


def test_mining_shards_that_have_similar_captions_replaces_them(settings, tmp_path):
    out, again = tmp_path / "one.captions.jsonl", tmp_path / "two.captions.jsonl"
    mine(settings(captions_out=out))
    packed(tmp_path, tmp_path / "captions.jsonl", read(out))
    assert TYPE in out.read_text()
    with pytest.raises(UserError, match="exists already; pass --overwrite"):
        mine(settings(captions_out=out))
    mine(settings(captions_out=again, batch=3, workers=2))
    assert again.read_bytes() == out.read_bytes()


def test_another_suffix_is_refused_before_anything_is_written(settings, tmp_path):
    with pytest.raises(UserError, match=r"its name must end in \.jsonl or \.jsonl\.gz"):
        mine(settings(captions_out=tmp_path / "similar.json"))
    assert not (tmp_path / "near.safetensors").exists()
    with pytest.raises(UserError, match="per_caption is 0; it must be 1 or more"):
        settings(per_caption=0)
