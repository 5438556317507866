"""The layout of a shard folder, and the folders that are refused."""

import json
import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, Negative, TrainingSample
from hnc_ds.shards.format import (
    decode_sample,
    encode_sample,
    read_index,
    read_shard_index,
    sample_key,
)
from hnc_ds.shards.pack import pack

# ------------------------------------------------------------------ keys and samples


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_keys_are_unique_and_hold_nothing_that_tar_or_webdataset_would_cut(one, other):
    key = sample_key(one)
    assert set(key) <= set(string.ascii_letters + string.digits + "-_%")
    assert (key == sample_key(other)) == (one == other)


def test_ids_of_gqa_stay_as_they_are():
    assert sample_key("n100552") == "n100552"
    assert sample_key("a-b_C") == "a-b_C"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
negatives = st.builds(Negative, texts, texts, st.one_of(st.none(), st.tuples(texts, texts)))
groups = st.builds(CaptionGroup, texts, texts, st.lists(negatives, max_size=3).map(tuple))


@given(
    st.builds(
        TrainingSample,
        texts,
        st.integers(1, 10_000),
        st.integers(1, 10_000),
        st.lists(groups, max_size=3).map(tuple),
    )
)
def test_a_sample_survives_writing_and_reading(sample):
    assert decode_sample(encode_sample(sample), "here") == sample


def test_a_sample_is_plain_json_that_others_can_read():
    negative = Negative("A cat.", "swap", ("dog", "cat"))
    sample = TrainingSample("n1", 640, 480, (CaptionGroup("A dog.", "relation", (negative,)),))
    assert json.loads(encode_sample(sample)) == {
        "image_id": "n1",
        "width": 640,
        "height": 480,
        "groups": [
            {
                "positive": "A dog.",
                "type": "relation",
                "negatives": [{"caption": "A cat.", "type": "swap", "replaced": ["dog", "cat"]}],
            }
        ],
        "format": 1,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"image_id": "1", "width": 2, "height": "3", "groups": []}', r"\$\.height"),
        (b'{"image_id": "1", "wid', "truncated"),
        (b'{"image_id": "\xff"}', "utf-8"),
        (
            b'{"image_id":"1","width":2,"height":3,"groups":[],"format":2}',
            "in format 2, .* reads 1",
        ),
    ],
)
def test_a_bad_sample_is_refused_with_its_place(data, message):
    with pytest.raises(UserError, match=rf"^shard-000001\.tar:k: .*{message}"):
        decode_sample(data, "shard-000001.tar:k")


# ------------------------------------------------------------------ folders


@pytest.fixture
def packed(packing, tmp_path):
    packing.write(["a", "b", "c", "d", "e", "f"])
    pack(packing.config())
    return tmp_path / "out"


def test_a_whole_folder_is_read(packed):
    index = read_index(packed)
    assert [(shard.file, shard.samples) for shard in index.shards] == [
        ("shard-000000.tar", 4),
        ("shard-000001.tar", 2),
    ]
    assert index.samples == 6
    assert [at.key for at in read_shard_index(packed, "shard-000001.tar").samples] == ["e", "f"]


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent: no such folder; .*hnc-ds pack"):
        read_index(tmp_path / "absent")


def test_a_folder_of_other_tars_is_refused_with_the_command_that_reads_them(tmp_path):
    (tmp_path / "00000.tar").touch()
    with pytest.raises(UserError, match=r"holds no index\.json, .* first: hnc-ds pack --captions"):
        read_index(tmp_path)


def test_an_unfinished_folder_is_refused(packed):
    (packed / "index.json").unlink()
    with pytest.raises(UserError, match=r"holds no index\.json, so packing did not finish"):
        read_index(packed)


def test_a_missing_shard_is_named(packed):
    (packed / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar: missing"):
        read_index(packed)


@pytest.mark.parametrize("change", [-512, -1, 1])
def test_a_shard_of_another_size_is_named_with_both_sizes(packed, change):
    tar = packed / "shard-000000.tar"
    size = tar.stat().st_size
    os.truncate(tar, size + change)
    with pytest.raises(UserError, match=rf"shard-000000\.tar: {size + change} bytes, .* {size};"):
        read_index(packed)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_index_without_samples_is_refused(packed):
    rewrite(packed / "index.json", samples=0, shards=[])
    with pytest.raises(UserError, match="holds no samples"):
        read_index(packed)


def test_an_index_of_another_format_is_refused(packed):
    rewrite(packed / "index.json", format=7)
    with pytest.raises(UserError, match=r"index\.json: written in format 7, this version reads 1"):
        read_index(packed)


@pytest.mark.parametrize("file", ["../elsewhere.tar", "/etc/hostname", "a/../../b.tar"])
def test_an_index_that_leads_out_of_the_folder_is_refused(packed, file):
    shard = {"file": file, "samples": 6, "bytes": 1, "sha256": "0"}
    rewrite(packed / "index.json", shards=[shard])
    with pytest.raises(UserError, match="outside the folder"):
        read_index(packed)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"format": 1'])
@pytest.mark.parametrize("name", ["index.json", "shard-000000.json"])
def test_a_broken_index_is_refused(packed, name, data):
    (packed / name).write_bytes(data)
    read = {
        "index.json": lambda: read_index(packed),
        "shard-000000.json": lambda: read_shard_index(packed, "shard-000000.tar"),
    }[name]
    with pytest.raises(UserError, match=rf"{name}: not a shard index"):
        read()


def test_a_missing_shard_index_is_named(packed):
    (packed / "shard-000001.json").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.json: missing"):
        read_shard_index(packed, "shard-000001.tar")
