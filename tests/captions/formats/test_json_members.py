"""Cutting a JSON object into members, against Python's own decoder, on objects made to confuse."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnc_ds.captions.formats import json_members
from hnc_ds.captions.formats.json_members import members
from hnc_ds.errors import UserError

# Brackets, quotes and backslashes, in strings and keys, next to each other in every order.
NASTY = st.text(st.sampled_from('{}[]":,\\ n\n\tü€😀'), max_size=8) | st.text(max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NASTY
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NASTY, VALUES, max_size=5)
LAYOUTS = st.sampled_from(
    [
        {},
        {"indent": 2},
        {"separators": (",", ":")},
        {"ensure_ascii": False},
        {"ensure_ascii": False, "indent": 1, "separators": (" ,", " : ")},
    ]
)
BLOCKS = st.sampled_from([1, 2, 3, 5, 16, 1 << 17])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("members") / "object.json"


def cut(path, data, block):
    """The members of these bytes, read ``block`` bytes at a time."""
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_members, "READ_BYTES", block)
        return list(members(path))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(content=OBJECTS, layout=LAYOUTS, block=BLOCKS)
def test_members_are_what_json_reads_and_their_offsets_are_true(path, content, layout, block):
    data = json.dumps(content, **layout).encode()
    found = cut(path, data, block)
    assert [(m.key, json.loads(m.value)) for m in found] == list(content.items())
    for member in found:
        assert data[member.offset : member.offset + len(member.value)] == member.value


@settings(max_examples=200, deadline=None)
@given(content=OBJECTS, layout=LAYOUTS, block=BLOCKS, share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(
    path, content, layout, block, share
):
    data = json.dumps(content, **layout).encode()
    with pytest.raises(UserError, match="broken JSON at byte"):
        cut(path, data[: int(share * len(data))], block)


@pytest.mark.parametrize("block", [1, 7, 1 << 17])
def test_a_missing_quote_is_refused_and_not_searched_for_without_end(path, block):
    data = b'{"a": {"b": 1}, "c: {"d": "e"}, "f": [2]}'
    with pytest.raises(UserError, match="broken JSON at byte"):
        cut(path, data, block)


@pytest.mark.parametrize("block", [3, 1 << 17])
def test_members_before_the_break_are_given_first(path, monkeypatch, block):
    path.write_bytes(b'{"a": {"b": "}"}, "c": ["]"], "d" 1}')
    monkeypatch.setattr(json_members, "READ_BYTES", block)
    stream = members(path)
    assert [next(stream).value, next(stream).value] == [b'{"b": "}"}', b'["]"]']
    with pytest.raises(UserError, match="broken JSON at byte 30"):
        next(stream)


def test_a_value_much_larger_than_a_read_is_cut_in_linear_time(path, monkeypatch):
    value = b"[" + b", ".join([b'{"name": "a } in a string"}'] * 40_000) + b"]"
    path.write_bytes(b'{"small": 1, "large": ' + value + b', "last": "x"}')
    monkeypatch.setattr(json_members, "READ_BYTES", 1 << 10)
    reads = []
    read = json_members._Cutter._read
    monkeypatch.setattr(
        json_members._Cutter, "_read", lambda cutter: reads.append(1) or read(cutter)
    )
    assert [m.value for m in members(path)] == [b"1", value, b'"x"']
    assert len(reads) < 20  # ever larger ones, not a thousand of the same size
