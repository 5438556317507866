"""The held-out pairs that a model gets most wrong, drawn for TensorBoard."""

import heapq
from collections.abc import Iterable

import numpy as np

from hnc_ds.evaluation.items import Item, PairItem
from hnc_ds.records import CaptionGroup, Negative, TrainingSample
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.sheet import drawn_sheet

PICTURES = 3
"""One row of a sheet."""


def draw_worst(items: Iterable[Item], reader: ShardReader) -> np.ndarray | None:
    """The pairs whose negative leads most over the positive, of different images.

    Args:
        items: Scores of pairs, and others.
        reader: Of the shards that were measured.

    Returns:
        uint8 RGB [height, width, 3]; None where there are no pairs.
    """
    of_image: dict[int, PairItem] = {}
    for item in items:
        if isinstance(item, PairItem):
            known = of_image.get(item.image)
            if known is None or item.margin < known.margin:
                of_image[item.image] = item
    worst = heapq.nsmallest(PICTURES, of_image.values(), key=lambda item: item.margin)
    if not worst:
        return None
    cards = [(reader.image_bytes(item.image), _alone(item, reader)) for item in worst]
    return np.asarray(drawn_sheet(cards, seed=0))


def _alone(item: PairItem, reader: ShardReader) -> TrainingSample:
    """The sample with nothing but the pair."""
    sample = reader.sample(item.image)
    negative = Negative(caption=item.negative, type=item.type)
    group = CaptionGroup(positive=item.positive, type=item.statement, negatives=(negative,))
    told = f"{item.key}   margin {item.margin:+.3f}"
    return TrainingSample(told, sample.width, sample.height, (group,))
