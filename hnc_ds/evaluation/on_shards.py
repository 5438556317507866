"""A model on held-out shards: hard negatives and retrieval.

Composes the measures; the formulas lie in hard_negatives.py, retrieval.py and statistics.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain

from hnc_ds.config import EvaluateConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import BENCHMARKS, HARD_NEGATIVES, RETRIEVAL, chosen_benchmarks
from hnc_ds.evaluation.embed import (
    EmbeddedImages,
    EmbeddedSet,
    PictureBatch,
    ShardPictures,
    Worse,
)
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.hard_negatives import HardNegatives
from hnc_ds.evaluation.items import Item, ItemsHeader, fingerprint
from hnc_ds.evaluation.retrieval import Retrieval
from hnc_ds.evaluation.robustness import Condition, Judged, read_conditions, robustness
from hnc_ds.records import Result, TrainingSample
from hnc_ds.shards.reader import ShardReader

Measure = HardNegatives | Retrieval

MEASURES: dict[str, type[Measure]] = {
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
    encoder: Encoder,
    name: str,
    reader: ShardReader,
    config: EvaluateConfig,
    pictures: Iterable[PictureBatch] | None = None,
) -> Measured:
    """The chosen measures of a model on the samples of a reader; writes nothing. A collective.

    Args:
        encoder: Of the model.
        name: What the results call it.
        reader: Of the samples.
        config: Benchmarks, corruptions and seed; `out` is where the results will lie.
        pictures: Of the reader, as the encoder reads them; read from the shards when not given.

    Raises:
        UserError: Nothing there that a chosen benchmark could measure, more than 1 % of the
            images unreadable.
    """
    images = encoder.shards(reader, pictures)
    caption_ids: dict[str, int] = {}
    measures = _measures([reader.sample(i) for i in images.samples], caption_ids, reader, config)
    captions = list(caption_ids)
    text_TD, too_long = encoder.texts(captions)
    keys = [(index, reader.key(index)) for index in images.samples]
    embedded = EmbeddedSet(keys, images.image_ND, captions, text_TD)
    scored = [one.score(embedded, name, config.seed) for one in measures.values()]
    rows = [row for own, _ in scored for row in own]
    return Measured(
        [*rows, *_robustness(measures, embedded, encoder, name, reader, config)],
        _header(name, reader, images, captions, too_long, config),
        chain.from_iterable(items for _, items in scored),
    )


def _robustness(
    measures: Mapping[str, Measure],
    embedded: EmbeddedSet,
    encoder: Encoder,
    name: str,
    reader: ShardReader,
    config: EvaluateConfig,
) -> Iterator[Result]:
    """Rows of all measures on worse pictures; pictures are encoded once for each condition."""
    conditions = read_conditions(config.corruptions)

    def judge(seen: EmbeddedSet) -> dict[tuple[str, str], Judged]:
        return {
            (benchmark, metric): judged
            for benchmark, one in measures.items()
            for metric, judged in one.judge(seen).items()
        }

    def under(condition: Condition) -> dict[tuple[str, str], Judged]:
        images = encoder.pictures(ShardPictures(reader), Worse(*condition, config.seed))
        return judge(replace(embedded, image_ND=images.image_ND))

    found = robustness(judge(embedded), conditions, under, config.seed) if conditions else ()
    for (benchmark, metric), group, interval in found:
        version = BENCHMARKS[benchmark].version
        yield Result(name, benchmark, version, metric, group, *astuple(interval))


def _measures(
    samples: Sequence[TrainingSample],
    caption_ids: dict[str, int],
    reader: ShardReader,
    config: EvaluateConfig,
) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for name in chosen_benchmarks(config.benchmarks):
        made = MEASURES[name](samples, caption_ids)
        if not len(made):
            raise UserError(
                f"{reader.location}: holds no {BENCHMARKS[name].title.lower()}; generate and pack "
                f"them first, or choose other benchmarks (--benchmarks)"
            )
        measures[name] = made
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
