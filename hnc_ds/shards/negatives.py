"""Which caption of an image a visit trains on, and which of its hard negatives."""

import random
from collections.abc import Sequence
from pathlib import Path

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.records import CaptionGroup, Negative


def draw_negatives(
    groups: Sequence[CaptionGroup],
    weights: dict[str, float],
    count: int,
    rng: random.Random,
    open_world: float = 1.0,
) -> tuple[CaptionGroup, tuple[Negative, ...]]:
    """Draw a caption of an image and hard negatives of it, negative types by their weights.

    A type is drawn first, then a group that has negatives of it, so that the shares of types
    follow the weights whatever an image has most of. The remaining slots are filled from the
    same group, again by type, without repetition.

    Args:
        groups: Of the image; at least one.
        weights: Positive weight of each type that may be drawn.
        count: Most negatives.
        rng: Of this visit.
        open_world: How often an unproven negative is drawn, relative to a proven one of its type.

    Returns:
        The group, and at most ``count`` of its negatives.
    """

    def weight(negative: Negative) -> float:
        return open_world if negative.open_world else 1.0

    drawable = [
        (group, [n for n in group.negatives if n.type in weights and weight(n)]) for group in groups
    ]
    present = sorted({n.type for _, negatives in drawable for n in negatives})
    if not present:
        return rng.choice(groups), ()
    kind = _draw_type(present, weights, rng)
    having = [(group, left) for group, left in drawable if any(n.type == kind for n in left)]
    best = [max(weight(n) for n in left if n.type == kind) for _, left in having]
    group, left = rng.choices(having, best)[0]
    drawn: list[Negative] = []
    while left and len(drawn) < count:
        of_kind = [negative for negative in left if negative.type == kind]
        chosen = rng.choices(of_kind, [weight(n) for n in of_kind])[0]
        drawn.append(chosen)
        left = [negative for negative in left if negative.caption != chosen.caption]
        if left:
            kind = _draw_type(sorted({negative.type for negative in left}), weights, rng)
    return group, tuple(drawn)


def _draw_type(types: list[str], weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(types, [weights[name] for name in types])[0]


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
