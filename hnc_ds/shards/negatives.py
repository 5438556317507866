"""Which caption of an image a visit trains on, and which of its hard negatives."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.records import CaptionGroup, Negative

_AS_THEY_COME: Mapping[tuple[str, str], float] = MappingProxyType({})


def draw_negatives(
    groups: Sequence[CaptionGroup],
    weights: dict[str, float],
    count: int,
    rng: random.Random,
    open_world: float = 1.0,
    factors: Mapping[tuple[str, str], float] = _AS_THEY_COME,
) -> tuple[CaptionGroup, tuple[Negative, ...]]:
    """Draw a caption of an image and hard negatives of it, negative types by their weights.

    A type is drawn first, then a group that has negatives of it, so that the shares of types
    follow the weights whatever an image has most of. The remaining slots are filled from the
    same group, again by type, without repetition. Factors act on all three: of a type it counts
    how often its negatives would be drawn with them, on average, so that an image whose negatives
    of a type are all of one kind is drawn from for that type as often as this kind is to be drawn.

    Args:
        groups: Of the image; at least one.
        weights: Positive weight of each type that may be drawn.
        count: Most negatives.
        rng: Of this visit.
        open_world: How often an unproven negative is drawn, relative to a proven one of its type.
        factors: How often negatives are drawn by type and what they are about, as
            ``kind_factors`` has them; 1 where it has none.

    Returns:
        The group, and at most ``count`` of its negatives.
    """

    def proof(negative: Negative) -> float:
        return open_world if negative.open_world else 1.0

    def weight(negative: Negative) -> float:
        return proof(negative) * factors.get((negative.type, negative.about), 1.0)

    def factor(negatives: Sequence[Negative]) -> float:
        """On average."""
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
    """Weight of its most proven negative of the type."""
    weight: float
    """With factors."""


def type_weights(data: DataConfig, present: Sequence[str], folder: Path | str) -> dict[str, float]:
    """How often each negative type is drawn, of those that a folder of shards holds.

    Raises:
        UserError: A type is asked for that the folder does not hold.
    """
    if unknown := sorted(data.negative_types.keys() - set(present)):
        raise UserError(
            f"negative_types: {folder} holds no negatives of type '{unknown[0]}'"
            f"{did_you_mean(unknown[0], present)}; it has {', '.join(present) or 'none'}"
        )
    chosen = data.negative_types or dict.fromkeys(present, 1.0)
    return {name: weight for name, weight in chosen.items() if weight}
