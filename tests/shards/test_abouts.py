"""What negatives turn on, counted by pack and kept in the index."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, Negative
from hnc_ds.shards.format import Abouts, DatasetIndex, read_index, read_shard_index
from hnc_ds.shards.negatives import SeenAbouts, most_common
from hnc_ds.shards.pack import pack


def group(*kinds: tuple[str, str]) -> CaptionGroup:
    negatives = [Negative(f"n{i}", type_, about=about) for i, (type_, about) in enumerate(kinds)]
    return CaptionGroup("p", "relation", tuple(negatives))


def of_images(numbers: range, most: int) -> Abouts:
    """Each image has one negative, that identifies its image."""
    seen = SeenAbouts(most)
    for number in numbers:
        seen.add([group(("swap", f"image {number}"))])
    found = seen.summary()
    assert found is not None
    return found


def images_of(abouts: Abouts) -> list[int]:
    return [int(abouts.kinds[kind][1].split()[1]) for ((kind,),) in abouts.images]


def test_negatives_are_counted_by_type_and_about_and_groups_are_kept() -> None:
    seen = SeenAbouts(2)
    seen.add([group(("swap", "on"), ("swap", "on"), ("object", "colour")), group(("swap", ""))])
    seen.add([group(("object", "size"))])
    assert seen.summary() == Abouts(
        {"object": {"colour": 1, "size": 1}, "swap": {"": 1, "on": 2}},
        (("swap", "on"), ("object", "colour"), ("swap", ""), ("object", "size")),
        (((0, 0, 1), (2,)), ((3,),)),
    )


def test_of_many_images_those_are_kept_that_lie_evenly() -> None:
    assert images_of(of_images(range(8), 8)) == list(range(8))
    assert images_of(of_images(range(9), 8)) == list(range(0, 9, 2))
    found = of_images(range(70), 8)
    assert images_of(found) == list(range(0, 70, 16))
    assert (found.every, sum(found.counts["swap"].values())) == (16, 70)


@pytest.mark.parametrize("sizes", [(40, 40, 40), (40, 3), (3, 40)])
def test_shards_of_any_size_are_summed_with_images_as_far_apart(
    sizes: tuple[int, ...],
) -> None:
    whole = SeenAbouts(8)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    shards = [range(at, at + size) for at, size in zip(starts, sizes, strict=True)]
    for numbers in shards:
        whole.add_shard({"swap": len(numbers)}, of_images(numbers, 8))
    found = whole.summary()
    assert found is not None
    assert len(found.images) <= 8
    kept = images_of(found)
    for numbers in shards:
        own = [number for number in kept if number in numbers]
        assert len(own) == pytest.approx(len(numbers) / found.every, abs=1)
        assert {after - one for one, after in pairwise(own)} <= {found.every}
    assert sum(found.counts["swap"].values()) == sum(sizes)


def test_where_no_negative_says_what_it_is_about_there_is_nothing() -> None:
    seen = SeenAbouts(8)
    seen.add([group(("swap", ""), ("object", ""))])
    assert seen.summary() is None
    assert most_common(None, ["swap"]) == ()


def test_the_most_common_of_the_drawn_types_are_watched_predicates_first() -> None:
    counts = {"swap": {"on": 5, "under": 9, "": 50}, "object": {"colour": 4, "size": 8, "on": 3}}
    abouts = Abouts(counts, (), ())
    assert most_common(abouts, ["swap", "object"]) == ("under", "on", "size", "colour")
    assert most_common(abouts, ["swap", "object"], most=1) == ("under", "size")
    assert most_common(abouts, ["object"]) == ("on", "size", "colour")


def write(packing: Any, about: str) -> None:
    """Ten images whose swaps have an ``about``."""
    packing.write([f"{number}" for number in range(10)])
    lines = [json.loads(line) for line in packing.captions.open()]
    for line in lines:
        line["groups"][0]["negatives"][1]["about"] = about
    packing.captions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_pack_carries_it_into_shards_and_counts_it_whoever_writes_them(
    packing: Any, tmp_path: Path
) -> None:
    write(packing, "on")
    pack(packing.config("one"))
    pack(packing.config("three", workers=3))
    for part in range(2):
        pack(packing.config("parts", part=f"{part}/2"))
    index = read_index(tmp_path / "one")
    assert index.about is not None
    assert index.about.counts == {"attribute": {"": 10}, "swap": {"on": 10}}
    assert len(index.about.images) == 10
    first = read_shard_index(tmp_path / "one", "shard-000000.tar")
    assert first.about is not None
    assert first.about.counts == {"attribute": {"": 4}, "swap": {"on": 4}}
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert files["shard-000000.tar"].count(b'"about":"on"') == 4
    for other in ("three", "parts"):
        assert {p.name: p.read_bytes() for p in (tmp_path / other).iterdir()} == files, other


def test_an_index_of_before_is_read_and_one_without_it_has_the_bytes_of_before(
    packing: Any, tmp_path: Path
) -> None:
    write(packing, "")
    pack(packing.config())
    text = (tmp_path / "out" / "index.json").read_bytes()
    assert b"about" not in text
    assert msgspec.json.decode(text, type=DatasetIndex).about is None


def test_an_index_with_numbers_of_no_kind_is_one_line(packing: Any, tmp_path: Path) -> None:
    write(packing, "on")
    pack(packing.config())
    path = tmp_path / "out" / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"images":[[[0,1]]', b'"images":[[[0,2]]'))
    with pytest.raises(UserError, match=r"index\.json: 'about' has numbers of kinds that it does"):
        read_index(tmp_path / "out")
