"""Several shard folders in one training: as one data set, and in proportions."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.folders import ShardFolders
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.loader import EMPTY, Batch, TrainingData
from hnc_ds.shards.order import images_fingerprint
from hnc_ds.shards.reader import ShardReader
from hnc_ds.training.feed import batches
from tests.shards.test_loader import SETTINGS, same, text_of, tokenize

TRAIN, VAL = 96, 12


@pytest.fixture
def folders(scene_shards: Path) -> tuple[str, str]:
    return str(scene_shards / "train"), str(scene_shards / "val")


def make(
    folders: tuple[str, ...], rank: int = 0, ranks: int = 1, batch: int = 8, **data: object
) -> TrainingData:
    rows = range(rank * batch // ranks, (rank + 1) * batch // ranks)
    config = DataConfig(shards=folders, **data)  # type: ignore[arg-type]
    return TrainingData(folders, config, 5, batch, rows, SETTINGS, tokenize)


def samples_of(data: TrainingData, steps: range) -> list[int]:
    return [int(index) for step in steps for index in data.batch(step).image_index_B]


def test_folders_hold_the_samples_of_each_one_after_the_other(folders: tuple[str, str]) -> None:
    both, readers = ShardFolders(folders), [ShardReader(folder) for folder in folders]
    assert (len(both), both.shard_sizes) == (TRAIN + VAL, [TRAIN, VAL])
    samples = [(reader, number) for reader in readers for number in range(len(reader))]
    for sample, (reader, number) in enumerate(samples):
        assert both.sample(sample) == reader.sample(number)
        assert both.image_bytes(sample) == reader.image_bytes(number)
        assert both.where(sample) == reader.where(number)
        assert both.has_sum(sample)
    assert both.negative_types == tuple(
        sorted({name for reader in readers for name in reader.index.negatives})
    )
    assert images_fingerprint(*readers) != images_fingerprint(*reversed(readers))
    both.close()


def test_counts_of_what_negatives_are_about_are_the_sums_of_the_folders(
    folders: tuple[str, str],
) -> None:
    found = ShardFolders(folders).about
    abouts = [ShardReader(folder).index.about for folder in folders]
    assert found is not None
    expected: dict[str, Counter[str]] = {}
    for about in abouts:
        assert about is not None
        for type_, counts in about.counts.items():
            expected.setdefault(type_, Counter()).update(counts)
    assert found.counts == expected
    assert len(found.images) == TRAIN + VAL
    assert ShardFolders(folders[:1]).about == abouts[0]


def test_types_and_abouts_of_a_batch_are_those_of_all_folders(
    plain_shards: Path, folders: tuple[str, str]
) -> None:
    """The first folder has no negatives, the second has."""
    data = make((str(plain_shards / "none"), folders[1]), mix=(1, 1))
    assert data.negative_types == tuple(sorted(ShardReader(folders[1]).index.negatives))
    reader, batch = ShardReader(folders[1]), data.batch(0)
    assert [index >= TRAIN for index in batch.image_index_B.tolist()] == [False, True] * 4
    for row, index in enumerate(batch.image_index_B.tolist()):
        slots = zip(batch.negative_BK[row].tolist(), batch.negative_type_BK[row], strict=True)
        drawn = {(text_of(batch, s), data.negative_types[t]) for s, t in slots if s != EMPTY}
        assert bool(drawn) == (index >= TRAIN)
        if drawn:
            groups = reader.sample(index - TRAIN).groups
            assert drawn <= {(n.caption, n.type) for group in groups for n in group.negatives}


def test_without_mix_each_image_of_all_folders_comes_once_an_epoch(
    folders: tuple[str, str],
) -> None:
    data = make(folders, batch=36)
    assert data.epoch == TRAIN + VAL
    for epoch in range(2):
        seen = samples_of(data, range(3 * epoch, 3 * epoch + 3))
        assert sorted(seen) == list(range(TRAIN + VAL))


def test_with_mix_each_step_has_its_proportions(folders: tuple[str, str]) -> None:
    data = make(folders, mix=(3, 1))
    assert data.epoch == TRAIN + VAL
    for step in range(13):
        own = [index >= TRAIN for index in samples_of(data, range(step, step + 1))]
        assert own == [False, False, False, True] * 2
    seen = Counter(samples_of(data, range(16)))  # 96 and 32 images
    assert [seen[sample] for sample in range(TRAIN)] == [1] * TRAIN
    assert {seen[sample] for sample in range(TRAIN, TRAIN + VAL)} == {2, 3}  # 32 / 12


@pytest.mark.slow
@pytest.mark.parametrize("mix", [(), (3, 1)])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_and_workers_change_nothing(
    ranks: int, mix: tuple[float, ...], folders: tuple[str, str]
) -> None:
    whole = make(folders, mix=mix, unrelated_negatives=1)
    expected = [whole.batch(step) for step in range(9, 14)]
    for one, other in zip(batches(whole, range(9, 14), 2, pin=False), expected, strict=True):
        assert isinstance(one, Batch)
        assert same(one, other)
    for step, batch in zip(range(9, 14), expected, strict=True):
        parts = [make(folders, r, ranks, mix=mix, unrelated_negatives=1) for r in range(ranks)]
        drawn = [part.batch(step) for part in parts]
        for name in ("images_B3RR", "image_index_B", "negative_type_BK", "negative_about_BK"):
            joined = torch.cat([getattr(part, name) for part in drawn])
            assert torch.equal(joined, getattr(batch, name)), name
        texts = [text_of(part, int(row)) for part in drawn for row in part.positive_B]
        assert texts == [text_of(batch, int(row)) for row in batch.positive_B]


def test_one_folder_in_a_list_is_that_folder(folders: tuple[str, str]) -> None:
    alone = TrainingData(folders[0], DataConfig(), 5, 8, range(8), SETTINGS, tokenize)
    for listed in (make(folders[:1]), make(folders[:1], mix=(2,))):
        assert all(same(listed.batch(step), alone.batch(step)) for step in (0, 11, 12, 30))


def test_an_image_of_the_same_folder_stands_in_for_a_corrupt_one(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folders[1], damaged)
    offsets = read_shard_index(damaged, "shard-000000.tar").samples[4]
    with (damaged / "shard-000000.tar").open("r+b") as file:
        file.seek(offsets.image_offset)
        file.write(b"\0" * offsets.image_bytes)
    data = make((folders[0], str(damaged)), mix=(1, 1))
    found = [data.batch(step) for step in range(6)]  # two passes through the second folder
    assert [w for batch in found for w in batch.corrupt] == [
        f"{damaged}/shard-000000.tar:{offsets.key}"
    ] * 2
    for batch in found:
        drawn = batch.image_index_B.tolist()
        assert [index >= TRAIN for index in drawn] == [False, True] * 4
        assert TRAIN + 4 not in drawn


def test_a_batch_that_takes_more_of_a_folder_than_it_holds_is_reported(
    folders: tuple[str, str],
) -> None:
    assert make(folders, batch=48, mix=(3, 1)).repeats(100) is None  # 12 of 12 images
    assert make(folders, batch=52, mix=(3, 1)).repeats(100) == (
        "the batch of step 1 holds 1 of its 52 images not for the first time, as it takes more "
        "images of a folder than that holds; rows of one image do not compete with each other"
    )


def test_lines_on_the_folders_of_a_run(folders: tuple[str, str]) -> None:
    both = ShardFolders(folders)
    assert list(ShardFolders(folders[:1]).described(())) == []
    assert list(both.described(())) == [
        f"from {folders[0]}, 96 images", f"from {folders[1]}, 12 images",
    ]  # fmt: skip
    assert list(both.described((3, 1))) == [
        f"3 in 4 images from {folders[0]}, 96 images, each 0.84 times an epoch",
        f"1 in 4 images from {folders[1]}, 12 images, each 2.25 times an epoch",
    ]


def test_the_same_shards_twice_are_refused_at_whatever_path(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folders[0])
    message = f"{folders[0]} and {link} hold the same shards; give them to --shards once"
    with pytest.raises(UserError, match=re.escape(message)):
        ShardFolders((*folders, link))
    with pytest.raises(UserError, match="hold no negatives of type 'swop'"):
        make(folders, negative_types={"swop": 1.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mix": (3, 1, 1)}, "mix has 3 weights for 2 folders of --shards; give one for each"),
        ({"mix": (3.0,)}, "mix has 1 weight for 2 folders of --shards"),
        ({"mix": (1.0,), "shards": None}, "mix has 1 weight for 0 folders of --shards"),
        ({"mix": (3, 0)}, "mix: a weight is 0; leave that folder out of --shards"),
        ({"mix": (3, -1)}, "mix is -1; it must be 0 or more"),
        ({"mix": (1, float("inf"))}, "mix is inf; it must be a number"),
        (
            {"mix": (0.333333, 0.666667)},
            "mix: these proportions are 333,333 to 666,667 in whole numbers, of a sum over "
            "100,000; round them, such as to 3 1",
        ),
        ({"shards": ()}, "shards names no folder; give a folder or a URL, or leave --shards out"),
        ({"similar": Path("near")}, "similar is a file for the images of one folder"),
    ],
)
def test_settings_that_do_not_fit_several_folders_are_one_line(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        DataConfig(**{"shards": ("a", "b"), **given})  # type: ignore[arg-type]


def test_weights_are_taken_as_written() -> None:
    assert DataConfig(shards=("a", "b"), mix=(0.3, 0.1)).proportions == (3, 1)
    assert DataConfig(shards=("a", "b"), mix=(300, 100)).proportions == (3, 1)
    assert DataConfig(shards=("a", "b", "c"), mix=(1, 0.5, 0.25)).proportions == (4, 2, 1)
