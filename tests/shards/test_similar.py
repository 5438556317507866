"""The file of neighbours: read as it was written, refused where it is of something else."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.order import (
    NO_NEIGHBOR,
    Mined,
    Neighbours,
    PairedOrder,
    SampleOrder,
    images_fingerprint,
    read_neighbours,
    sample_order,
    write_neighbours,
)
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

from .conftest import PackInput


@pytest.fixture
def reader(packing: PackInput) -> ShardReader:
    """Six images in two shards."""
    packing.write("abcdef")
    pack(packing.config())
    return ShardReader(packing.folder / "out")


def in_a_ring(reader: ShardReader) -> Neighbours:
    """Each sample's neighbours are the next two; the last sample has none."""
    number = np.arange(len(reader), dtype=np.int32)
    nearest = np.stack([number + 1, number + 2], axis=1) % len(reader)
    cosine = np.tile(np.float32([0.75, 0.25]), (len(reader), 1))
    nearest[-1], cosine[-1] = NO_NEIGHBOR, 0
    return Neighbours(nearest, cosine, Mined(images_fingerprint(reader), "m", 2))


def test_what_is_written_is_read(reader: ShardReader, tmp_path: Path) -> None:
    path, written = tmp_path / "new" / "near.safetensors", in_a_ring(reader)
    write_neighbours(path, written)
    read = read_neighbours(path, reader)
    assert read.mined == written.mined
    assert np.array_equal(read.nearest_NK, written.nearest_NK)
    assert np.array_equal(read.cosine_NK, written.cosine_NK)


def test_means_are_over_the_neighbours_that_are_there(reader: ShardReader) -> None:
    found = in_a_ring(reader)
    assert found.mean_cosine() == 0.5
    assert found.first(1).mean_cosine() == 0.75
    assert found.described() == (
        "2 nearest images by m, 6 of 6 are near another; mean cosine 0.500"
    )
    assert found.first(1).described().startswith("1 nearest images by m, 5 of 6 are near another")


def test_a_file_of_other_images_is_refused(
    packing: PackInput, reader: ShardReader, tmp_path: Path
) -> None:
    path = tmp_path / "near.safetensors"
    write_neighbours(path, in_a_ring(reader))
    packing.write("abcdeg")
    pack(packing.config("other"))
    other = ShardReader(packing.folder / "other")
    with pytest.raises(UserError, match=r"was mined from other images than .*other; make it"):
        read_neighbours(path, other)


def test_other_captions_of_the_same_images_keep_their_neighbours(
    packing: PackInput, reader: ShardReader, tmp_path: Path
) -> None:
    path = tmp_path / "near.safetensors"
    write_neighbours(path, in_a_ring(reader))
    packing.captions.write_text(packing.captions.read_text().replace("blue", "green"))
    pack(packing.config("other"))
    other = ShardReader(packing.folder / "other")
    assert other.index.shards != reader.index.shards
    assert read_neighbours(path, other).mined.k == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nearest": np.full((5, 2), 1, np.int32)}, "does not hold neighbours of 6 samples"),
        ({"nearest": np.full((6, 2), 6, np.int32)}, "does not hold neighbours of 6 samples"),
        ({"nearest": np.full((6, 2), -2, np.int32)}, "does not hold neighbours of 6 samples"),
        ({"nearest": np.full((6, 2), 1, np.float32)}, "does not hold neighbours of 6 samples"),
        ({"cosine": np.zeros((6, 3), np.float32)}, "does not hold neighbours of 6 samples"),
        ({"k": 3}, "does not hold neighbours of 6 samples"),
        ({"format": 2}, "written in format 2, this version reads 1"),
        ({"without": "cosine"}, "not a file of neighbours"),
        ({"without": "mined"}, "not a file of neighbours"),
    ],
)
def test_files_that_hold_something_else_are_refused(
    reader: ShardReader, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    good = in_a_ring(reader)
    fields = {name: change[name] for name in ("k", "format") if name in change}
    mined = msgspec.json.encode(msgspec.structs.replace(good.mined, **fields)).decode()
    parts = {"nearest": good.nearest_NK, "cosine": good.cosine_NK, "mined": mined} | change
    parts.pop(str(change.get("without")), None)
    tensors = {name: parts[name] for name in ("nearest", "cosine") if name in parts}
    metadata = {"mined": parts["mined"]} if "mined" in parts else None
    path = tmp_path / "near.safetensors"
    path.write_bytes(save(tensors, metadata))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        read_neighbours(path, reader)


def test_missing_and_torn_files_are_refused(reader: ShardReader, tmp_path: Path) -> None:
    path = tmp_path / "near.safetensors"
    with pytest.raises(UserError, match="no such file; make it with 'hnc-ds mine"):
        read_neighbours(path, reader)
    write_neighbours(path, in_a_ring(reader))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not a file of neighbours"):
        read_neighbours(path, reader)


def test_an_order_is_plain_unless_a_file_is_named(reader: ShardReader, tmp_path: Path) -> None:
    assert isinstance(sample_order([reader], DataConfig(), 0), SampleOrder)
    path = tmp_path / "near.safetensors"
    write_neighbours(path, in_a_ring(reader))
    paired = sample_order([reader], DataConfig(similar=path, nearest=1), 0)
    assert isinstance(paired, PairedOrder)
    for base, partner in zip(paired.visits(0, 24)[::2], paired.visits(0, 24)[1::2], strict=True):
        assert base.sample == 5 or partner.sample == base.sample + 1


def test_more_neighbours_than_the_file_has_are_refused(reader: ShardReader, tmp_path: Path) -> None:
    path = tmp_path / "near.safetensors"
    write_neighbours(path, in_a_ring(reader))
    with pytest.raises(UserError, match=r"nearest is 3, but .* holds 2 for each image; choose"):
        sample_order([reader], DataConfig(similar=path), 0)


def test_a_file_that_cannot_be_written_is_one_line(reader: ShardReader, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_neighbours(tmp_path / "file" / "near.safetensors", replace(in_a_ring(reader)))
