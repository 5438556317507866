"""Batches: what is drawn at a step, on any number of ranks and workers."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.images import CorruptImage
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.images import ImageSettings, decode_image
from hnc_ds.shards.loader import EMPTY, Batch, CaptionMasks, TrainingData
from hnc_ds.shards.order import NO_NEIGHBOR, Mined, Neighbours, images_fingerprint, write_neighbours
from hnc_ds.shards.reader import ShardReader
from hnc_ds.training.feed import batches

SETTINGS = ImageSettings(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
WORDS: dict[str, int] = {}


class Tokenizer:
    """A number for each caption: enough to read it back."""

    padding = 0

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[WORDS.setdefault(c, len(WORDS)), 9**9] for c in captions])

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        return 2 + token_TL[:, 0] % 7  # message from the caption, so that it is seen whose it is


tokenize = Tokenizer()


def text_of(batch: Batch, row: int) -> str:
    return list(WORDS)[int(batch.token_TL[row, 0])]


def make(
    folder: Path, rank: int = 0, ranks: int = 1, batch: int = 8, **data: object
) -> TrainingData:
    share = batch // ranks
    rows = range(rank * share, (rank + 1) * share)
    config = DataConfig(**data)  # type: ignore[arg-type]
    return TrainingData(folder, config, 5, batch, rows, SETTINGS, tokenize)


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(first, second, strict=True)
    )


def test_ranks_together_draw_what_one_process_draws(scene_shards: Path) -> None:
    whole = make(scene_shards / "train").batch(14)
    parts = [make(scene_shards / "train", rank, 4).batch(14) for rank in range(4)]
    for name in ("images_B3RR", "image_index_B", "negative_type_BK", "negative_about_BK"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    texts = [text_of(part, int(row)) for part in parts for row in part.positive_B]
    assert texts == [text_of(whole, int(row)) for row in whole.positive_B]


def test_on_another_number_of_ranks_each_remaining_sample_comes_once(scene_shards: Path) -> None:
    """Four steps of 16 on 2 ranks, then the last two of the epoch's 96 on 1."""
    before = [
        int(index)
        for step in range(4)
        for rank in range(2)
        for index in make(scene_shards / "train", rank, 2, 16).batch(step).image_index_B
    ]
    data = make(scene_shards / "train", batch=16)
    after = [int(index) for step in range(4, 6) for index in data.batch(step).image_index_B]
    assert sorted(before + after) == list(range(96))


def test_workers_change_nothing_and_any_step_can_be_the_first(scene_shards: Path) -> None:
    data = make(scene_shards / "train", unrelated_negatives=2, positives=3)
    expected = [data.batch(step) for step in range(3, 9)]
    for workers in (0, 2):
        found = list(batches(data, range(3, 9), workers, pin=False))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert isinstance(one, Batch)
            assert same(one, other)


def test_a_batch_holds_true_captions_and_false_ones_of_their_images(scene_shards: Path) -> None:
    data = make(scene_shards / "train", unrelated_negatives=3)
    reader = ShardReader(scene_shards / "train")
    for step in range(6):
        batch = data.batch(step)
        for row, index in enumerate(batch.image_index_B.tolist()):
            groups = {group.positive: group for group in reader.sample(index).groups}
            group = groups[text_of(batch, int(batch.positive_B[row]))]
            negatives = {negative.caption: negative.type for negative in group.negatives}
            slots = zip(batch.negative_BK[row], batch.negative_type_BK[row], strict=True)
            drawn = [(int(s), int(t)) for s, t in slots if s != EMPTY]
            texts = [text_of(batch, slot) for slot, _ in drawn]
            assert len(set(texts)) == len(texts) == min(4, len(group.negatives))
            for text, (_, kind) in zip(texts, drawn, strict=True):
                assert negatives[text] == data.negative_types[kind]
            for slot in batch.unrelated_BM[row].tolist():
                assert slot == EMPTY or text_of(batch, slot) not in groups


@pytest.mark.parametrize("most", [3, 1000])
def test_further_positives_are_other_true_captions_and_change_no_other_draw(
    most: int, scene_shards: Path
) -> None:
    reader = ShardReader(scene_shards / "train")
    plain = make(scene_shards / "train", unrelated_negatives=2).batch(0)
    batch = make(scene_shards / "train", unrelated_negatives=2, positives=most).batch(0)
    assert batch.further_BP is not None
    for row, index in enumerate(batch.image_index_B.tolist()):
        true = {group.positive for group in reader.sample(index).groups}
        first = text_of(batch, int(batch.positive_B[row]))
        drawn = [first, *(text_of(batch, int(t)) for t in batch.further_BP[row])]
        distinct = min(len(true), most)
        assert len(drawn) == most
        assert set(drawn) <= true
        assert len(set(drawn[:distinct])) == distinct
        assert drawn == [drawn[n % distinct] for n in range(most)]
        assert (distinct == most) == (most == 3)
    count = len(plain.token_TL)  # further captions come after the others
    cut = batch._replace(
        further_BP=None,
        **{name: getattr(batch, name)[:count] for name in ("token_TL", "text_index_T", "used_T")},
    )
    assert same(cut, plain)


def test_each_positive_is_a_batch_of_its_own(scene_shards: Path) -> None:
    batch = make(scene_shards / "train", positives=3).batch(0)
    assert batch.further_BP is not None
    first, *further = batch.with_each_positive()
    assert same(first, batch._replace(further_BP=None))
    assert torch.equal(torch.stack([b.positive_B for b in further], dim=1), batch.further_BP)
    assert all(b.masks == CaptionMasks(True, True) and b.further_BP is None for b in further)


def test_every_caption_of_a_batch_is_there_once(scene_shards: Path) -> None:
    batch = make(scene_shards / "train", batch=32).batch(0)
    assert len(set(batch.token_TL[:, 0].tolist())) == len(batch.token_TL)
    assert int(torch.cat([batch.positive_B, batch.negative_BK.flatten()]).max()) < len(
        batch.token_TL
    )


def test_equal_captions_have_equal_numbers_and_others_do_not(scene_shards: Path) -> None:
    numbers: dict[str, int] = {}
    captions = 0
    for step in range(6):  # as on six ranks
        batch = make(scene_shards / "train", batch=48).batch(step)
        assert len(batch.text_index_T) == len(batch.token_TL)
        captions += len(batch.token_TL)
        for row, number in enumerate(batch.text_index_T.tolist()):
            assert numbers.setdefault(text_of(batch, row), number) == number
    assert len(set(numbers.values())) == len(numbers) < captions


def test_a_type_that_the_shards_do_not_hold_is_refused(scene_shards: Path) -> None:
    with pytest.raises(UserError, match="no negatives of type 'swop'; did you mean 'swap'"):
        make(scene_shards / "train", negative_types={"swop": 1.0})


def test_without_negatives_only_positives_and_unrelated_captions_stay(scene_shards: Path) -> None:
    for unrelated, positives in ((0, 1), (2, 1), (2, 3)):
        chosen = {"unrelated_negatives": unrelated, "positives": positives}
        batch = make(scene_shards / "train", **chosen).batch(1)
        plain = batch.without_negatives()
        assert (plain.negative_BK == EMPTY).all()
        assert torch.equal(plain.used_T, tokenize.used_tokens(plain.token_TL))
        names = ("positive_B", "unrelated_BM", *(("further_BP",) if positives > 1 else ()))
        for name in names:
            before = batch.token_TL[getattr(batch, name).clamp(min=0)]
            used = getattr(batch, name) != EMPTY
            assert torch.equal(
                plain.token_TL[getattr(plain, name).clamp(min=0)][used], before[used]
            )
            assert torch.equal(getattr(plain, name) != EMPTY, used)
        kept = torch.cat([getattr(plain, name).flatten() for name in names])
        assert sorted(set(kept.tolist()) - {EMPTY}) == list(range(len(plain.token_TL)))


def test_a_neighbour_stands_in_for_a_corrupt_image_and_it_is_reported(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    offsets = read_shard_index(folder, "shard-000000.tar").samples[7]
    with (folder / "shard-000000.tar").open("r+b") as tar:
        tar.seek(offsets.image_offset)
        tar.write(b"\0" * offsets.image_bytes)
    data = make(folder, batch=32)
    found = [data.batch(step) for step in range(3)]
    corrupt = [where for batch in found for where in batch.corrupt]
    assert corrupt == [f"{folder}/shard-000000.tar:{offsets.key}"]
    seen = Counter(int(index) for batch in found for index in batch.image_index_B)
    assert seen[7] == 0
    assert sum(seen.values()) == 96
    assert len(seen) == 95


def test_damaged_shards_come_back_as_an_error_not_an_exception(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    data = make(folder)
    (folder / "shard-000000.json").write_text("{}")
    answer = data[0]
    assert isinstance(answer, UserError)
    assert "shard-000000.json" in str(answer)


@pytest.fixture
def similar(scene_shards: Path, tmp_path: Path) -> Path:
    """A file in which each training scene's nearest are the four after it; scene 0 has none."""
    reader = ShardReader(scene_shards / "train")
    total = len(reader)
    nearest = ((np.arange(total)[:, None] + np.arange(1, 5)) % total).astype(np.int32)
    nearest[0] = NO_NEIGHBOR
    mined = Mined(images_fingerprint(reader), "drawn", 4)
    path = tmp_path / "near.safetensors"
    write_neighbours(path, Neighbours(nearest, np.full((total, 4), 0.5, np.float32), mined))
    return path


@pytest.mark.parametrize("batch", [6, 8])
def test_pairs_are_the_same_on_one_rank_and_on_two(
    scene_shards: Path, similar: Path, batch: int
) -> None:
    """With a batch of 6 each rank has 3 rows, so a pair lies on both."""
    for step in (0, 7, 31):
        whole = make(scene_shards / "train", batch=batch, similar=similar).batch(step)
        parts = [
            make(scene_shards / "train", rank, 2, batch, similar=similar).batch(step)
            for rank in range(2)
        ]
        for name in ("images_B3RR", "image_index_B", "negative_type_BK"):
            assert torch.equal(
                torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)
            )


def test_pairs_resume_at_any_step_with_any_workers(scene_shards: Path, similar: Path) -> None:
    """An uneven batch, so that pairs lie across steps."""
    data = make(scene_shards / "train", batch=7, similar=similar, unrelated_negatives=1)
    expected = [data.batch(step) for step in range(8)]
    for workers in (0, 2):
        found = list(batches(data, range(3, 8), workers, pin=False))
        assert len(found) == 5
        for one, other in zip(found, expected[3:], strict=True):
            assert isinstance(one, Batch)
            assert same(one, other)


def test_with_pairs_every_sample_comes_by_itself_once_an_epoch(
    scene_shards: Path, similar: Path
) -> None:
    data = make(scene_shards / "train", batch=16, similar=similar, nearest=2)
    total = len(data.reader)
    samples = samples_of(data, 2 * total)
    assert sorted(samples[::2]) == list(range(total))
    for base, partner in zip(samples[::2], samples[1::2], strict=True):
        assert base == 0 or (partner - base) % total in (1, 2)
    assert samples[::2] == samples_of(make(scene_shards / "train", batch=16), total)


def samples_of(data: TrainingData, count: int) -> list[int]:
    """The first samples of the stream, with batches of 16."""
    steps = range(-(-count // 16))
    return torch.cat([data.batch(step).image_index_B for step in steps]).tolist()[:count]


def test_a_sample_drawn_beside_another_is_cropped_anew(scene_shards: Path, similar: Path) -> None:
    data = make(scene_shards / "train", batch=16, similar=similar)
    images: dict[int, list[torch.Tensor]] = {}
    for step in range(12):
        batch = data.batch(step)
        for sample, image in zip(batch.image_index_B.tolist(), batch.images_B3RR, strict=True):
            images.setdefault(sample, []).append(image)
    several = [views for views in images.values() if len(views) > 1]
    assert len(several) > 50
    assert sum(torch.equal(views[0], views[1]) for views in several) < len(several) / 10


def test_neighbours_of_other_shards_are_refused(scene_shards: Path, similar: Path) -> None:
    with pytest.raises(UserError, match="was mined from other images than"):
        make(scene_shards / "val", similar=similar)


def test_in_pairs_too_a_neighbour_stands_in_for_a_corrupt_image(
    scene_shards: Path, similar: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    offsets = read_shard_index(folder, "shard-000000.tar").samples[7]
    with (folder / "shard-000000.tar").open("r+b") as tar:
        tar.seek(offsets.image_offset)
        tar.write(b"\0" * offsets.image_bytes)
    data = make(folder, batch=16, similar=similar)
    found = [data.batch(step) for step in range(24)]
    assert all(7 not in batch.image_index_B.tolist() for batch in found)
    corrupt = [where for batch in found for where in batch.corrupt]
    assert set(corrupt) == {f"{folder}/shard-000000.tar:{offsets.key}"}
    assert len(corrupt) > 2  # by itself in both epochs, and beside others


def test_a_batch_that_holds_images_twice_is_reported_with_its_numbers(scene_shards: Path) -> None:
    folder = scene_shards / "train"
    assert make(folder, batch=32).repeats(100) is None  # three steps an epoch
    assert make(folder, batch=40).repeats(2) is None  # the run ends before its epoch
    data = make(folder, batch=40)
    again = 40 - len(set(data.batch(2).image_index_B.tolist()))
    assert again > 0
    message = data.repeats(3)
    assert message is not None
    assert f"the batch of step 3 holds {again} of its 40 images not for the first time" in message
    message = make(folder, batch=256).repeats(1)
    assert message is not None
    assert "step 1 holds 160 of its 256 images" in message
    assert "larger than the data (96 images)" in message


def test_hard_negatives_that_the_context_cuts_to_their_positive_are_found(
    scene_shards: Path,
) -> None:
    whole = make(scene_shards / "train", batch=32).batch(0)

    class Cut(Tokenizer):
        def __call__(self, captions: Sequence[str]) -> torch.Tensor:
            return super().__call__([" ".join(caption.split()[:4]) for caption in captions])

    data = make(scene_shards / "train", batch=32)
    data._tokenize = Cut()
    found_BK = data.batch(0).find_alike()
    assert not whole.find_alike().any()
    expected_BK = torch.zeros_like(found_BK)
    for row, positive in enumerate(whole.positive_B.tolist()):
        for slot, negative in enumerate(whole.negative_BK[row].tolist()):
            if negative != EMPTY:
                words = [text_of(whole, which).split()[:4] for which in (positive, negative)]
                expected_BK[row, slot] = words[0] == words[1]
    assert 0 < expected_BK.sum() < expected_BK.numel()
    assert torch.equal(found_BK, expected_BK)


def test_an_image_without_captions_is_one_line_that_names_it(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    leave_out_sums(folder / "shard-000000.json")
    offsets = read_shard_index(folder, "shard-000000.tar").samples[0]
    reader = ShardReader(folder)
    sample = json.dumps({"image_id": "1", "width": 48, "height": 48, "groups": []})
    with (folder / "shard-000000.tar").open("r+b") as tar:
        tar.seek(offsets.json_offset)
        tar.write(sample.encode().ljust(offsets.json_bytes))
    line = rf"shard-000000.tar:{offsets.key}: has no captions; pack the shards again"
    with pytest.raises(UserError, match=line):
        reader.sample(0)
    found = list(batches(make(folder, batch=96), range(1), 1, pin=False))
    assert line.split(":")[1] in str(found[0])


def leave_out_sums(index: Path) -> None:
    """As shards of before have it."""
    content = json.loads(index.read_bytes())
    content["samples"] = [sample[:5] for sample in content["samples"]]
    index.write_text(json.dumps(content))


def test_a_flipped_bit_of_a_shard_is_counted_or_named_and_never_trained_on(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    tar = folder / "shard-000000.tar"
    first, second, *_ = read_shard_index(folder, tar.name).samples
    data = bytearray(tar.read_bytes())
    data[first.image_offset + first.image_bytes // 2] ^= 1
    caption = data.index(b"The", second.json_offset)
    data[caption] ^= 32  # "the"
    tar.write_bytes(data)
    reader = ShardReader(folder)
    with pytest.raises(CorruptImage):
        decode_image(reader.image_bytes(0))
    with pytest.raises(UserError, match=rf"{second.key}: its captions differ from those"):
        reader.sample(1)
    assert reader.image_bytes(1) == ShardReader(scene_shards / "train").image_bytes(1)

    leave_out_sums(folder / "shard-000000.json")
    before = ShardReader(folder)
    assert len(before.image_bytes(0)) == first.image_bytes
    assert before.sample(1).image_id == second.key


def test_captions_without_negatives_have_empty_slots_on_any_ranks_and_workers(
    plain_shards: Path,
) -> None:
    folder = plain_shards / "some"
    reader, data = ShardReader(folder), make(folder, batch=16, share_with_negatives=0.5)
    whole = [data.batch(step) for step in range(12)]
    filled = []
    for batch in whole:
        for row, index in enumerate(batch.image_index_B.tolist()):
            groups = {group.positive: group for group in reader.sample(index).groups}
            group = groups[text_of(batch, int(batch.positive_B[row]))]
            used = int((batch.negative_BK[row] != EMPTY).sum())
            assert used == min(4, len(group.negatives))
            assert used == int((batch.negative_type_BK[row] != EMPTY).sum())
            if len({bool(one.negatives) for one in reader.sample(index).groups}) == 2:
                filled.append(used > 0)
    assert 0.35 < sum(filled) / len(filled) < 0.65
    parts = [make(folder, rank, 2, 16, share_with_negatives=0.5) for rank in range(2)]
    for step, batch in enumerate(whole[:4]):
        for name in ("images_B3RR", "negative_type_BK"):
            own = [getattr(part.batch(step), name) for part in parts]
            assert torch.equal(torch.cat(own), getattr(batch, name))
    for one, other in zip(batches(data, range(2, 6), 2, pin=False), whole[2:6], strict=True):
        assert isinstance(one, Batch)
        assert same(one, other)


def test_data_without_any_negative_has_empty_slots_alone(plain_shards: Path) -> None:
    data = make(plain_shards / "none", batch=16, share_with_negatives=1.0)
    batch = data.batch(0)
    assert data.negative_types == ()
    assert (batch.negative_BK == EMPTY).all()
    assert batch.negative_BK.shape == (16, 4)
    assert not batch.find_alike().any()
    with pytest.raises(UserError, match="no negatives of type 'swap'; it has none"):
        make(plain_shards / "none", negative_types={"swap": 1.0})
