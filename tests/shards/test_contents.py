"""What `inspect` prints of a folder, draws of it, and finds when it verifies."""

import hashlib
import json
import os

import pytest
from PIL import Image

from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.contents import inspect_shards, verify
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader


@pytest.fixture
def packed(packing, tmp_path):
    packing.write(["a", "b", "c", "d", "e", "f"])
    pack(packing.config())
    return tmp_path / "out"


def record_anew(tar):
    """Make index and shard index agree with changed bytes, as a forger or a bug would."""
    data = tar.read_bytes()
    shard_index = tar.with_suffix(".json")
    recorded = json.loads(shard_index.read_text())
    recorded["summary"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    shard_index.write_text(json.dumps(recorded))
    index = json.loads((tar.parent / "index.json").read_text())
    index["shards"] = [
        recorded["summary"] if shard["file"] == tar.name else shard for shard in index["shards"]
    ]
    (tar.parent / "index.json").write_text(json.dumps(index))


def test_the_table_counts_captions_shares_and_words(packed, capsys):
    capsys.readouterr()
    inspect_shards(InspectConfig(shards=packed))
    first, header, *rows, skipped, drawn = capsys.readouterr().out.splitlines()

    assert first.startswith(f"{packed}: 6 images, 6 groups, 12 negatives in 2 shards (")
    assert header.split() == ["captions", "per", "image", "share", "mean", "words"]
    # "The star of a is red." / "The star of a is blue." / "The red star has a a."
    assert [row.split() for row in rows] == [
        ["true", "captions", "6", "1.00", "6.0"],
        ["attribute", "6", "1.00", "50.0%", "6.0"],
        ["swap", "6", "1.00", "50.0%", "6.0"],
    ]
    assert skipped.split(": ")[1] == "none"
    assert drawn == f"6 samples drawn on {packed / 'sheet.png'}"


def test_the_table_shows_what_most_negatives_of_a_type_are_about(packing, tmp_path, capsys):
    packing.write(["a", "b", "c", "d", "e"])
    images = [json.loads(line) for line in packing.captions.open()]
    for image, about in zip(images, ("on", "on", "on", "under", ""), strict=True):
        image["groups"][0]["negatives"][1]["about"] = about
    packing.captions.write_text("".join(f"{json.dumps(image)}\n" for image in images))
    pack(packing.config())
    capsys.readouterr()
    inspect_shards(InspectConfig(shards=tmp_path / "out", verify=True))
    _, _, header, _, attribute, swap, *_ = capsys.readouterr().out.splitlines()
    assert header.endswith("mean words   most are about")
    assert attribute.split()[-1] == "6.0"
    assert swap.split()[-2:] == ["on", "60.0%"]


def test_the_sheet_is_an_image_with_a_card_per_sample(packed, tmp_path):
    sheets = {}
    for samples in (1, 3, 6):
        path = tmp_path / f"{samples}.png"
        inspect_shards(InspectConfig(shards=packed, samples=samples, sheet=path))
        with Image.open(path) as sheet:
            assert sheet.format == "PNG"
            sheets[samples] = sheet.size
    assert sheets[3][0] > 2 * sheets[1][0]
    assert sheets[6][0] == sheets[3][0]
    assert sheets[6][1] > 1.5 * sheets[3][1]


def test_the_same_seed_draws_the_same_sheet_and_another_another(packed, tmp_path):
    def drawn(name, seed):
        path = tmp_path / name
        inspect_shards(InspectConfig(shards=packed, samples=2, sheet=path, seed=seed))
        return path.read_bytes()

    assert drawn("one.png", 0) == drawn("two.png", 0)
    assert len({drawn("x.png", seed) for seed in range(4)}) > 1


def test_a_sheet_that_cannot_be_written_is_one_line(packed, tmp_path):
    with pytest.raises(UserError, match=r"absent/sheet\.png: cannot be written \(No such file"):
        inspect_shards(InspectConfig(shards=packed, sheet=tmp_path / "absent" / "sheet.png"))


def test_a_whole_folder_is_verified(packed):
    assert verify(ShardReader(packed)) == (2, 6)


def test_one_flipped_bit_is_found(packed):
    tar = packed / "shard-000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"shard-000001\.tar: differs from its sha256 or index"):
        verify(ShardReader(packed))


def test_a_truncated_tar_is_found(packed):
    tar = packed / "shard-000000.tar"
    os.truncate(tar, tar.stat().st_size // 2)
    with pytest.raises(UserError, match=r"shard-000000\.tar: \d+ bytes, but index\.json says"):
        verify(ShardReader(packed))


@pytest.mark.parametrize("size", [100, 700, 1024, 1536])
def test_a_tar_that_was_recorded_truncated_is_found(packed, size):
    tar = packed / "shard-000000.tar"
    os.truncate(tar, size)
    record_anew(tar)
    with pytest.raises(UserError, match=r"shard-000000\.tar: (not a whole tar|\d members for 4)"):
        verify(ShardReader(packed))


def test_members_elsewhere_than_in_the_index_are_found(packed):
    path = packed / "shard-000000.json"
    recorded = json.loads(path.read_text())
    recorded["samples"][2][1] += 512
    path.write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"shard-000000\.tar: c\.jpg is not where the index says"):
        verify(ShardReader(packed))


def test_captions_of_another_image_are_found(packed):
    tar = packed / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes().replace(b'"image_id":"e"', b'"image_id":"x"'))
    record_anew(tar)
    with pytest.raises(UserError, match=r"shard-000001\.tar:e\.json: is of image x"):
        verify(ShardReader(packed))


def test_counts_that_are_not_those_of_the_shards_are_found(packed):
    index = json.loads((packed / "index.json").read_text())
    del index["negatives"]["swap"]
    (packed / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index\.json: its counts are not the sums of its shards"):
        verify(ShardReader(packed))


def test_verifying_is_part_of_inspect_when_asked_for(packed, capsys):
    inspect_shards(InspectConfig(shards=packed, verify=True))
    assert "verified: every byte of 6 samples in 2 shards" in capsys.readouterr().out
