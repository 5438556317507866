"""A model on held-out shards: hard negatives and retrieval.

Composes the measures; the formulas lie in hard_negatives.py, retrieval.py and statistics.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from hnc_ds.config import EvaluateConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import BENCHMARKS, HARD_NEGATIVES, RETRIEVAL, chosen_benchmarks
from hnc_ds.evaluation.embed import (
    EmbeddedImages,
    EmbeddedSet,
    PictureBatch,
    ShardPictures,
    embed_pictures,
    embed_texts,
    read_pictures,
)
from hnc_ds.evaluation.hard_negatives import HardNegatives
from hnc_ds.evaluation.items import Item, ItemsHeader, fingerprint
from hnc_ds.evaluation.retrieval import Retrieval
from hnc_ds.model.clip import Clip
from hnc_ds.records import Result, TrainingSample
from hnc_ds.shards.reader import ShardReader

MEASURES: dict[str, type[HardNegatives] | type[Retrieval]] = {
    HARD_NEGATIVES: HardNegatives,
    RETRIEVAL: Retrieval,
}
"""How each benchmark of the table is measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything one evaluation gives."""

    results: list[Result]
    header: ItemsHeader
    items: Iterable[Item]
    """Of each benchmark in turn, in the order of the shards. Made as they are taken, once."""


def measure(
    model: Clip,
    name: str,
    reader: ShardReader,
    device: torch.device,
    config: EvaluateConfig,
    pictures: Iterable[PictureBatch] | None = None,
) -> Measured:
    """The chosen measures of a model on the samples of a reader; writes nothing.

    Args:
        model: On the device, in evaluation mode.
        name: What the results call it.
        reader: Of the samples.
        device: Of the embeddings.
        config: Benchmarks, batch, workers and seed; `out` is where the results will lie.
        pictures: Of the reader, as the model sees them; read from the shards when not given.

    Raises:
        UserError: Nothing there that a chosen benchmark could measure, more than 1 % of the
            images unreadable.
    """
    if pictures is None:
        shards, workers = ShardPictures(reader), config.workers
        view, batch = model.image_settings, config.batch
        pictures = read_pictures(shards, view, device, batch=batch, workers=workers)
    images = embed_pictures(model, pictures, reader, device)
    caption_ids: dict[str, int] = {}
    measures = _measures([reader.sample(i) for i in images.samples], caption_ids, reader, config)
    captions = list(caption_ids)
    text_TD, too_long = embed_texts(model, captions, device)
    keys = [(index, reader.key(index)) for index in images.samples]
    embedded = EmbeddedSet(keys, images.image_ND, captions, text_TD)
    scored = [one.score(embedded, name, config.seed) for one in measures]
    return Measured(
        [row for rows, _ in scored for row in rows],
        _header(name, reader, images, captions, too_long, config),
        chain.from_iterable(items for _, items in scored),
    )


def _measures(
    samples: Sequence[TrainingSample],
    caption_ids: dict[str, int],
    reader: ShardReader,
    config: EvaluateConfig,
) -> list[HardNegatives | Retrieval]:
    measures = []
    for name in chosen_benchmarks(config.benchmarks):
        made = MEASURES[name](samples, caption_ids)
        if not len(made):
            raise UserError(
                f"{reader.location}: holds no {BENCHMARKS[name].title.lower()}; generate and pack "
                f"them first, or choose other benchmarks (--benchmarks)"
            )
        measures.append(made)
    return measures


def _header(
    name: str,
    reader: ShardReader,
    images: EmbeddedImages,
    captions: Sequence[str],
    too_long: int,
    config: EvaluateConfig,
) -> ItemsHeader:
    return ItemsHeader(
        model=name,
        shards=reader.location_from(config.out.parent),
        fingerprint=fingerprint(reader.index),
        images=len(images.samples),
        captions=len(captions),
        too_long=too_long,
        unreadable=tuple(reader.key(index) for index in images.unreadable),
        seed=config.seed,
    )
