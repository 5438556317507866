"""How often negatives are drawn by what they are about, so that nothing takes too much of a type.

    share of the draws of a type  <=  --most_of_one

Colours are most of what people annotate of things, left and right most of their relations: drawn
as they come, a training would see little else. Found are factors by which negatives of a kind
(type and predicate, or type and class of attribute) are drawn more or less often than others; in a
draw (negatives.py) they act on the type, the group and the negative alike, so that an image with
nothing but colours is drawn from for another type more often, and one with a rare predicate for
that. Shares of types stay. What the images do not allow is approached as far as MOST_OFTEN lets it.

Source of the fit: iterative proportional fitting, Deming and Stephan 1940; halved steps, as a group
is drawn as a whole.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hnc_ds.shards.abouts import Kind
from hnc_ds.shards.format import Abouts

MOST_OFTEN = 16.0
"""How many times as often, or as seldom, as without it a kind is drawn at most beside others of its
type: a handful of rare negatives is not to be learned by heart."""

ROUNDS = 100
"""Of the fit."""


def kind_factors(
    abouts: Abouts | None, weights: Mapping[str, float], most: float, slots: int
) -> dict[Kind, float]:
    """How many times as often as others the negatives of each kind are drawn. A pure function.

    Args:
        abouts: Of the shards; None gives no factors, so that all is drawn as it comes.
        weights: Of each type that is drawn.
        most: Largest share of a type's draws that are about one thing, as far as there is enough
            else; 1 gives no factors. Negatives that do not say what they are about are left alone.
        slots: Negatives drawn at a time; at least one.
    """
    if abouts is None or most == 1 or (seen := _seen(abouts, weights, slots)) is None:
        return {}
    of_type_K, told_K = seen.type_K, seen.told_K
    plain_K = seen.drawn(np.ones(len(of_type_K)))
    plain_T = np.bincount(of_type_K, plain_K)
    aim_K = _aims(plain_K / plain_T[of_type_K], of_type_K, told_K, most)
    factor_K, factor_T = np.ones(len(of_type_K)), np.ones(len(plain_T))
    for _ in range(ROUNDS):
        drawn_K = seen.drawn(factor_K * factor_T[of_type_K])
        drawn_T = np.bincount(of_type_K, drawn_K)
        factor_T *= np.sqrt(plain_T / drawn_T)
        factor_K *= np.sqrt(aim_K * drawn_T[of_type_K] / drawn_K)
        factor_K = factor_K.clip(1 / MOST_OFTEN, MOST_OFTEN)
    found_K = (factor_K * factor_T[of_type_K]).tolist()
    found = dict(zip(seen.kinds, found_K, strict=True))
    return found | _rest(abouts, found)


def capped(shares: np.ndarray, most: float) -> np.ndarray:
    """Shares of which none is above a largest one, the others as they are among each other.

    Args:
        shares: [K], above 0, of sum 1.
        most: Where fewer than 1 / most are there, all become alike.
    """
    most = max(most, 1 / len(shares))
    found, free = shares.astype(float), np.ones(len(shares), dtype=bool)
    while (above := free & (found > most + 1e-12)).any():
        found[above], free = most, free & ~above
        if free.any():
            found[free] = shares[free] * (1 - most * (~free).sum()) / shares[free].sum()
    return found


def _rest(abouts: Abouts, found: Mapping[Kind, float]) -> dict[Kind, float]:
    """Factors of kinds so rare that no image shows them: as of those of their type that are drawn
    most often."""
    most: dict[str, float] = {}
    for (type_, about), factor in found.items():
        if about:
            most[type_] = max(factor, most.get(type_, 0.0))
    return {
        (type_, about): most[type_]
        for type_, counts in abouts.counts.items()
        for about in counts
        if about and type_ in most and (type_, about) not in found
    }


class _Seen(NamedTuple):
    """Negatives of the images that the index describes; P negatives, K kinds, T types."""

    kinds: list[Kind]
    type_K: np.ndarray
    told_K: np.ndarray
    """Whether it says what it is about."""
    image_P: np.ndarray
    group_P: np.ndarray
    kind_P: np.ndarray
    chance_P: np.ndarray
    """Relative to others of its image, without factors: weight of the type, over its groups of that
    type, over negatives of that type in the group."""
    filled_P: np.ndarray
    """How likely it is drawn once another one of its group is, taking the rest to be alike."""

    def drawn(self, factor_K: np.ndarray) -> np.ndarray:
        """Negatives of each kind drawn in one visit of every image, on average."""
        chance_P = self.chance_P * factor_K[self.kind_P]
        chance_P = chance_P / np.bincount(self.image_P, chance_P)[self.image_P]
        of_others_P = np.bincount(self.group_P, chance_P)[self.group_P] - chance_P
        drawn_P = chance_P + of_others_P * self.filled_P
        drawn_K: np.ndarray = np.bincount(self.kind_P, drawn_P, len(factor_K))
        return drawn_K


def _seen(abouts: Abouts, weights: Mapping[str, float], slots: int) -> _Seen | None:
    """None where nothing is drawn of what the index describes."""
    numbers: dict[Kind, int] = {}
    rows: list[tuple[int, int, int, float, float]] = []
    groups = 0
    for image, of_image in enumerate(abouts.images):
        kinds = [[k for n in g if (k := abouts.kinds[n])[0] in weights] for g in of_image]
        having: dict[str, int] = {}
        for group in kinds:
            for type_ in {type_ for type_, _ in group}:
                having[type_] = having.get(type_, 0) + 1
        for group in kinds:
            types = [type_ for type_, _ in group]
            filled = min(1.0, (slots - 1) / max(1, len(group) - 1))
            for kind in group:
                number = numbers.setdefault(kind, len(numbers))
                chance = weights[kind[0]] / having[kind[0]] / types.count(kind[0])
                rows.append((image, groups, number, chance, filled))
            groups += 1
    if not rows:
        return None
    image_P, group_P, kind_P, chance_P, filled_P = map(np.array, zip(*rows, strict=True))
    names = sorted({type_ for type_, _ in numbers})
    return _Seen(
        list(numbers),
        np.array([names.index(type_) for type_, _ in numbers]),
        np.array([bool(about) for _, about in numbers]),
        image_P,
        group_P,
        kind_P,
        chance_P,
        filled_P,
    )


def _aims(share_K: np.ndarray, type_K: np.ndarray, told_K: np.ndarray, most: float) -> np.ndarray:
    """The share of its type that each kind is to have."""
    aim_K = share_K.copy()
    for type_ in np.unique(type_K[told_K]):
        own = (type_K == type_) & told_K
        aim_K[own] = capped(share_K[own] / share_K[own].sum(), most) * share_K[own].sum()
    return aim_K
