"""Draw a caption of an image and its hard negatives, so that no kind dominates a type.

    share of one predicate or attribute class in a type's draws  <=  --most_of_one

Most annotated attributes are colours, most relations are left and right; drawn in proportion, a
training would see little else. A factor is fitted for each kind of negative (type and predicate, or
type and attribute class) and applied to the choice of type, group and negative, so that an image
with only colours serves other types more often, and one with a rare predicate serves it more often.
Shares of types stay the same. Factors are limited by MOST_OFTEN.

The fit needs to know how often any training would draw each kind. So pack stores each group's kinds
for an evenly spread sample of images: a few hundred kilobytes, whatever the size of the data.

Source of the fit: iterative proportional fitting, Deming and Stephan 1940; with square-root steps,
as a group is drawn as a whole.
"""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from hnc_ds.captions.language.attribute_classes import KINDS, kind_of
from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError, did_you_mean, holding
from hnc_ds.records import CaptionGroup, Negative
from hnc_ds.shards.format import Abouts

OF_SHARD, OF_FOLDER = 256, 1024
"""Maximum number of sampled images; at least half as many, or all where there are fewer."""

WATCHED = 12
"""Predicates, and attribute classes, that a training's log distinguishes."""

Kind = tuple[str, str]
"""A negative's type and subject (Negative.about)."""

_Groups = tuple[tuple[int, ...], ...]


class SeenAbouts:
    """Counts of one shard, or sums of several, which depend on the shards' order.

    Args:
        most: Maximum number of sampled images.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[Kind] = Counter()
        self._numbers: dict[Kind, int] = {}
        self._images: list[_Groups] = []
        self._seen, self._every = 0, 1

    def add(self, groups: Sequence[CaptionGroup]) -> None:
        """Count the negatives of an image."""
        kinds = [[(n.type, n.about) for n in group.negatives] for group in groups]
        for of_group in kinds:
            self._counts.update(of_group)
        if self._seen % self._every == 0:
            self._images.append(tuple([tuple(map(self._number, group)) for group in kinds]))
            self._thin(self._every)
        self._seen += 1

    def add_shard(self, negatives: Mapping[str, int], abouts: Abouts | None) -> None:
        """Add the sums of a shard.

        Args:
            negatives: Number of negatives by type.
            abouts: The shard's statistics; None where no negative has a subject.
        """
        if abouts is None:
            self._counts.update({(type_, ""): count for type_, count in negatives.items()})
            return
        for type_, counts in abouts.counts.items():
            self._counts.update({(type_, about): count for about, count in counts.items()})
        self._thin(abouts.every)
        numbers = [self._number(kind) for kind in abouts.kinds]
        for image in abouts.images[:: max(1, self._every // abouts.every)]:
            self._images.append(tuple([tuple([numbers[n] for n in group]) for group in image]))
        self._thin(self._every)

    def summary(self) -> Abouts | None:
        """The sums; None where no negative has a subject."""
        if not any(about for _, about in self._counts):
            return None
        counts: dict[str, dict[str, int]] = {}
        for (type_, about), count in sorted(self._counts.items()):
            counts.setdefault(type_, {})[about] = count
        return Abouts(counts, tuple(self._numbers), tuple(self._images), self._every)

    def _thin(self, every: int) -> None:
        """Halve the sample until its images are ``every`` apart and few enough."""
        while self._every < every or len(self._images) > self._most:
            self._images, self._every = self._images[::2], 2 * self._every

    def _number(self, kind: Kind) -> int:
        return self._numbers.setdefault(kind, len(self._numbers))


def most_common(
    abouts: Abouts | None, types: Collection[str], most: int = WATCHED
) -> tuple[str, ...]:
    """The predicates and the attribute classes with the most negatives of the types, at most
    ``most`` of each."""
    counts: Counter[str] = Counter()
    for type_, of_type in (abouts.counts if abouts else {}).items():
        if type_ in types:
            counts.update({about: count for about, count in of_type.items() if about})
    ordered = sorted(counts, key=lambda about: (-counts[about], about))
    return tuple(
        about for kind in KINDS for about in [a for a in ordered if kind_of(a) == kind][:most]
    )


MOST_OFTEN = 16.0
"""Largest factor, and inverse of the smallest: rare negatives must not be drawn so often that they
are memorized."""

ROUNDS = 100
"""Iterations of the fit."""


def chance_of_negatives(
    groups: Sequence[CaptionGroup] | _Groups, with_negatives: int, share: float | None
) -> float:
    """Probability that a visit of an image draws a caption with negatives.

    Args:
        groups: Its captions.
        with_negatives: How many of them have negatives.
        share: --share_with_negatives; None for every caption equally often.
    """
    if share is None or with_negatives in (0, len(groups)):
        return with_negatives / max(1, len(groups))
    return share


def kind_factors(
    abouts: Abouts | None,
    weights: Mapping[str, float],
    most: float,
    slots: int,
    share: float | None = None,
) -> dict[Kind, float]:
    """The factor of each kind of negative. A pure function.

    Args:
        abouts: The shards' statistics; None gives no factors.
        weights: Weight of each type that is drawn.
        most: Largest share of one predicate or attribute class in a type's draws, where the data
            allow it; 1 gives no factors. Negatives without a subject get factor 1.
        slots: Negatives per draw; at least one.
        share: As ``chance_of_negatives``.
    """
    if abouts is None or most == 1 or (seen := _seen(abouts, weights, slots, share)) is None:
        return {}
    of_type_K, has_about_K = seen.type_K, seen.has_about_K
    plain_K = seen.drawn(np.ones(len(of_type_K)))
    plain_T = np.bincount(of_type_K, plain_K)
    aim_K = _aims(plain_K / plain_T[of_type_K], of_type_K, has_about_K, most)
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
    """Shares capped at ``most``; the others keep their proportions and the sum stays 1.

    Args:
        shares: [K], positive, of sum 1.
        most: The cap; with fewer than 1 / most shares, all become equal.
    """
    most = max(most, 1 / len(shares))
    found, free = shares.astype(float), np.ones(len(shares), dtype=bool)
    while (above := free & (found > most + 1e-12)).any():
        found[above], free = most, free & ~above
        if free.any():
            found[free] = shares[free] * (1 - most * (~free).sum()) / shares[free].sum()
    return found


def _rest(abouts: Abouts, found: Mapping[Kind, float]) -> dict[Kind, float]:
    """Factors of kinds that no sampled image has: the largest factor of their type."""
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
    """Negatives of the sampled images; P negatives, K kinds, T types."""

    kinds: list[Kind]
    type_K: np.ndarray
    has_about_K: np.ndarray
    """Whether the kind has a subject."""
    image_P: np.ndarray
    group_P: np.ndarray
    kind_P: np.ndarray
    chance_P: np.ndarray
    """Chance relative to others of its image, without factors: weight of the type, divided by the
    number of groups with that type, divided by the negatives of that type in the group."""
    visited_P: np.ndarray
    """Probability that a visit of its image draws a caption with negatives."""
    filled_P: np.ndarray
    """Approximate probability of being drawn when another negative of its group is drawn first."""

    def drawn(self, factor_K: np.ndarray) -> np.ndarray:
        """Expected number of negatives of each kind in one visit of every image."""
        chance_P = self.chance_P * factor_K[self.kind_P]
        chance_P = self.visited_P * chance_P / np.bincount(self.image_P, chance_P)[self.image_P]
        of_others_P = np.bincount(self.group_P, chance_P)[self.group_P] - chance_P
        drawn_P = chance_P + of_others_P * self.filled_P
        drawn_K: np.ndarray = np.bincount(self.kind_P, drawn_P, len(factor_K))
        return drawn_K


def _seen(
    abouts: Abouts, weights: Mapping[str, float], slots: int, share: float | None
) -> _Seen | None:
    """The sampled images' negatives of the drawn types; None without any that can be drawn."""
    numbers: dict[Kind, int] = {}
    rows: list[tuple[int, int, int, float, float, float]] = []
    groups = 0
    for image, of_image in enumerate(abouts.images):
        kinds = [[k for n in g if (k := abouts.kinds[n])[0] in weights] for g in of_image]
        having: dict[str, int] = {}
        for group in kinds:
            for type_ in {type_ for type_, _ in group}:
                having[type_] = having.get(type_, 0) + 1
        visited = chance_of_negatives(of_image, sum(map(bool, of_image)), share)
        for group in kinds if visited else ():
            types = [type_ for type_, _ in group]
            filled = min(1.0, (slots - 1) / max(1, len(group) - 1))
            for kind in group:
                number = numbers.setdefault(kind, len(numbers))
                chance = weights[kind[0]] / having[kind[0]] / types.count(kind[0])
                rows.append((image, groups, number, chance, visited, filled))
            groups += 1
    if not rows:
        return None
    image_P, group_P, kind_P, chance_P, visited_P, filled_P = map(np.array, zip(*rows, strict=True))
    names = sorted({type_ for type_, _ in numbers})
    return _Seen(
        list(numbers),
        np.array([names.index(type_) for type_, _ in numbers]),
        np.array([bool(about) for _, about in numbers]),
        image_P,
        group_P,
        kind_P,
        chance_P,
        visited_P,
        filled_P,
    )


def _aims(
    share_K: np.ndarray, type_K: np.ndarray, has_about_K: np.ndarray, most: float
) -> np.ndarray:
    """The target share of each kind in its type."""
    aim_K = share_K.copy()
    for type_ in np.unique(type_K[has_about_K]):
        own = (type_K == type_) & has_about_K
        aim_K[own] = capped(share_K[own] / share_K[own].sum(), most) * share_K[own].sum()
    return aim_K


_AS_THEY_COME: Mapping[tuple[str, str], float] = MappingProxyType({})


def draw_negatives(
    groups: Sequence[CaptionGroup],
    weights: dict[str, float],
    count: int,
    rng: random.Random,
    open_world: float = 1.0,
    factors: Mapping[tuple[str, str], float] = _AS_THEY_COME,
    share: float | None = None,
) -> tuple[CaptionGroup, tuple[Negative, ...]]:
    """Draw a caption of an image and hard negatives of it, negative types by their weights.

    Of an image that also has captions without negatives, one of these is drawn with the rest of
    ``chance_of_negatives``. Else a type is drawn first, then a group that has negatives of it, so
    that shares of types follow the weights, whatever an image has most of. The remaining slots are
    filled from the same group, again by type, without repetition. Factors apply to all three draws;
    a type's factor is the mean of its negatives', so that an image serves a type as often as its
    kinds should be drawn.

    Args:
        groups: The image's caption groups; at least one.
        weights: Positive weight of each type that may be drawn.
        count: Maximum number of negatives.
        rng: Generator of this visit.
        open_world: Weight of an unproven negative, relative to a proven one of its type.
        factors: ``kind_factors``, by type and about; 1 by default.
        share: As ``chance_of_negatives``.

    Returns:
        The group, and at most ``count`` of its negatives.
    """

    def proof(negative: Negative) -> float:
        return open_world if negative.open_world else 1.0

    def weight(negative: Negative) -> float:
        return proof(negative) * factors.get((negative.type, negative.about), 1.0)

    def factor(negatives: Sequence[Negative]) -> float:
        """Mean factor."""
        if not factors:
            return 1.0
        return sum(map(weight, negatives)) / sum(map(proof, negatives))

    def by_type(negatives: Sequence[Negative]) -> dict[str, list[Negative]]:
        found: dict[str, list[Negative]] = {}
        for negative in negatives:
            found.setdefault(negative.type, []).append(negative)
        return dict(sorted(found.items()))

    choices: dict[str, list[_Choice]] = {}
    for group in groups:
        left = [n for n in group.negatives if n.type in weights and proof(n)]
        for kind, own in by_type(left).items():
            best = max(map(proof, own))
            choices.setdefault(kind, []).append(_Choice(group, left, best, best * factor(own)))
    if not choices:
        return rng.choice(groups), ()
    plain = [group for group in groups if not group.negatives]
    # Images without such captions take no random number, and so are drawn as ever.
    if plain and rng.random() >= chance_of_negatives(groups, len(groups) - len(plain), share):
        return rng.choice(plain), ()
    present = sorted(choices)
    often = [
        weights[kind] * sum(c.weight for c in choices[kind]) / sum(c.best for c in choices[kind])
        for kind in present
    ]
    kind = rng.choices(present, often)[0]
    group, left, *_ = rng.choices(choices[kind], [choice.weight for choice in choices[kind]])[0]
    drawn: list[Negative] = []
    while left and len(drawn) < count:
        of_kind = [negative for negative in left if negative.type == kind]
        chosen = rng.choices(of_kind, [weight(n) for n in of_kind])[0]
        drawn.append(chosen)
        left = [negative for negative in left if negative.caption != chosen.caption]
        if left:
            rest = by_type(left)
            often = [weights[kind] * factor(own) for kind, own in rest.items()]
            kind = rng.choices(list(rest), often)[0]
    return group, tuple(drawn)


class _Choice(NamedTuple):
    """A group that has negatives of a type."""

    group: CaptionGroup
    left: list[Negative]
    """Its negatives that may be drawn."""
    best: float
    """Largest proof weight of its negatives of the type."""
    weight: float
    """``best`` times the mean factor."""


def type_weights(
    data: DataConfig, present: Sequence[str], *folders: Path | str
) -> dict[str, float]:
    """Weight of each negative type that folders of shards hold.

    Raises:
        UserError: The settings name a type that the folders lack.
    """
    if unknown := sorted(data.negative_types.keys() - set(present)):
        raise UserError(
            f"negative_types: {holding(folders)} no negatives of type '{unknown[0]}'"
            f"{did_you_mean(unknown[0], present)}; it has {', '.join(present) or 'none'}"
        )
    chosen = data.negative_types or dict.fromkeys(present, 1.0)
    return {name: weight for name, weight in chosen.items() if weight}
