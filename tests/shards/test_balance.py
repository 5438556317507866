"""No predicate and no class of attributes takes more than its share of a type's draws."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from hnc_ds.records import CaptionGroup, Negative
from hnc_ds.shards.format import Abouts
from hnc_ds.shards.negatives import (
    MOST_OFTEN,
    Kind,
    SeenAbouts,
    capped,
    draw_negatives,
    kind_factors,
)

Groups = list[CaptionGroup]

PREDICATES = {"to the left of": 40, "to the right of": 40, "on": 8, "near": 5, "under": 4, "in": 3}
CLASSES = {"colour": 70, "size": 14, "material": 8, "pose": 5, "age": 3}
WEIGHTS = {"relation_pred": 1.0, "swap": 2.0, "attribute": 1.0, "obj_count": 1.0}


def images(count: int, seed: int = 0) -> list[Groups]:
    """As annotators do: left, right and colours everywhere, all else seldom; one image in eight
    has nothing else."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        poor = rng.random() < 1 / 8
        size = rng.randint(4, 12)
        groups = []
        for number in range(size):
            about = rng.choices([*PREDICATES], [*PREDICATES.values()])[0]
            about = rng.choice([*PREDICATES][:2]) if poor else about
            of = ("relation_pred", "swap") if number % 2 else ("swap",)
            groups.append(make(number, "r", about, of))
            cls = "colour" if poor else rng.choices([*CLASSES], [*CLASSES.values()])[0]
            if number % 2:
                groups.append(make(number, "a", cls, ("attribute",) * rng.randint(1, 2)))
        groups.append(make(size, "c", "", ("obj_count",)))
        found.append(groups)
    return found


def make(number: int, name: str, about: str, types: Sequence[str]) -> CaptionGroup:
    negatives = [Negative(f"{name}{number}{i}", t, about=about) for i, t in enumerate(types)]
    return CaptionGroup(f"{name}{number}", "relation", tuple(negatives))


def seen(data: Sequence[Groups]) -> Abouts | None:
    message = SeenAbouts(1024)
    for groups in data:
        message.add(groups)
    return message.summary()


def shares(
    data: Sequence[Groups], factors: dict[Kind, float], slots: int, visits: int = 6
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Of types among all draws, and of what they are about within a type."""
    rng, counts = random.Random(1), Counter[Kind]()
    for groups in data:
        for _ in range(visits):
            drawn = draw_negatives(groups, WEIGHTS, slots, rng, factors=factors)[1]
            counts.update((n.type, n.about) for n in drawn)
    of_type = Counter[str]()
    for (type_, _), count in counts.items():
        of_type[type_] += count
    within: dict[str, dict[str, float]] = {}
    for (type_, about), count in counts.items():
        within.setdefault(type_, {})[about] = count / of_type[type_]
    return {name: count / counts.total() for name, count in of_type.items()}, within


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_none_takes_more_than_a_quarter_and_types_keep_their_shares(slots: int) -> None:
    data = images(600)
    before, as_they_come = shares(data, {}, slots)
    assert as_they_come["relation_pred"]["to the left of"] > 0.38
    assert as_they_come["attribute"]["colour"] > 0.68
    factors = kind_factors(seen(data), WEIGHTS, 0.25, slots)
    after, within = shares(images(600, seed=7), factors, slots)  # others of their kind
    for type_ in ("relation_pred", "swap"):
        assert max(within[type_].values()) < 0.28, within[type_]
    assert within["attribute"]["colour"] < 0.33  # four others: all three quarters of them
    for type_, share in before.items():
        assert after[type_] == pytest.approx(share, abs=0.03), type_


def test_shares_that_are_small_enough_are_left_as_they_are() -> None:
    data = [[make(0, "r", about, ("swap",)) for about in ("on", "in", "near", "at")]] * 40
    for factor in kind_factors(seen(data), WEIGHTS, 0.25, 4).values():
        assert factor == pytest.approx(1)


def test_with_fewer_values_than_a_share_needs_they_become_alike() -> None:
    """Three images of four have one predicate, one both."""
    both = [make(0, "r", "left", ("swap",)), make(1, "r", "right", ("swap",))]
    data = [*[both, [both[0]], both, [both[0]]] * 30]
    _, as_they_come = shares(data, {}, 1)
    assert as_they_come["swap"]["left"] == pytest.approx(0.75, abs=0.02)
    factors = kind_factors(seen(data), WEIGHTS, 0.25, 1)
    _, within = shares(data, factors, 1)  # images with one alone can give nothing else
    assert within["swap"]["left"] == pytest.approx(0.5, abs=0.05)


def test_a_rare_value_is_not_drawn_without_end() -> None:
    data = [[make(n, "a", "colour", ("attribute",)) for n in range(20)] for _ in range(50)]
    data[0].append(make(20, "a", "age", ("attribute",)))
    factors = kind_factors(seen(data), WEIGHTS, 0.25, 1)
    ratio = factors["attribute", "age"] / factors["attribute", "colour"]
    assert ratio <= MOST_OFTEN**2 * 1.001
    assert np.isfinite([*factors.values()]).all()


def test_a_value_that_no_kept_image_shows_is_drawn_as_often_as_the_rarest() -> None:
    data = images(50)
    abouts = seen(data)
    assert abouts is not None
    abouts.counts["swap"]["behind"] = 1
    factors = kind_factors(abouts, WEIGHTS, 0.25, 1)
    message = [factor for (type_, about), factor in factors.items() if type_ == "swap" and about]
    assert factors["swap", "behind"] == max(message)


def test_nothing_is_changed_where_nothing_is_known_or_asked_or_drawn() -> None:
    abouts = seen(images(20))
    assert kind_factors(None, WEIGHTS, 0.25, 4) == {}
    assert kind_factors(abouts, WEIGHTS, 1, 4) == {}
    assert kind_factors(abouts, {"another": 1.0}, 0.25, 4) == {}


def test_the_factors_are_a_function_of_the_index_and_the_settings() -> None:
    first, second = (kind_factors(seen(images(80)), WEIGHTS, 0.25, 4) for _ in range(2))
    assert first == second
    assert kind_factors(seen(images(80)), WEIGHTS, 0.4, 4) != first


@pytest.mark.parametrize(
    ("given", "most", "expected"),
    [
        ((0.8, 0.1, 0.06, 0.04), 0.5, (0.5, 0.25, 0.15, 0.1)),
        ((0.6, 0.3, 0.06, 0.04), 0.3, (0.3, 0.3, 0.24, 0.16)),
        ((0.9, 0.08, 0.02), 0.25, (1 / 3, 1 / 3, 1 / 3)),
        ((0.2, 0.2, 0.2, 0.2, 0.2), 0.25, (0.2, 0.2, 0.2, 0.2, 0.2)),
        ((1.0,), 0.25, (1.0,)),
    ],
)
def test_what_is_above_a_share_is_cut_and_the_rest_keeps_its_proportions(
    given: tuple[float, ...], most: float, expected: tuple[float, ...]
) -> None:
    assert capped(np.array(given), most).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("share", [None, 0.3, 0.0])
def test_images_with_plain_captions_count_as_often_as_their_negatives_are_drawn(
    share: float | None,
) -> None:
    """In images of colours two of three captions are plain: colour 1 of 3 visits by default."""
    of_colour = [make(0, "a", "colour", ("attribute",)), *(make(n, "q", "", ()) for n in (1, 2))]
    of_sizes = [make(0, "b", "size", ("attribute",))]
    factors = kind_factors(seen([of_colour, of_sizes]), {"attribute": 1.0}, 0.5, 1, share)
    if share == 0:  # colour is drawn from no image
        assert set(factors.values()) == {1.0}
        return
    visited = 1 / 3 if share is None else share
    colour, size = factors["attribute", "colour"], factors["attribute", "size"]
    # One kind in each image: whatever the factors, its draws are its image's; they stay finite.
    assert np.isfinite([colour, size]).all()
    assert colour > size
    rng = random.Random(0)
    drawn = [
        draw_negatives(groups, {"attribute": 1.0}, 1, rng, 1.0, factors, share)[1]
        for groups in [of_colour] * 3000
    ]
    assert sum(map(bool, drawn)) / 3000 == pytest.approx(visited, abs=0.03)
