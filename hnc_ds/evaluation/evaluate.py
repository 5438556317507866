"""Evaluate models: write results.json and the score of every item.

    hnc-ds evaluate runs/first --shards data/scenes/shards/val --out runs/first/results/val.json
    hnc-ds evaluate ViT-B-32:openai --data sugarcrepe=sugar-crepe/data --images coco2017=val2017 \\
        --out results/openai.json
    hnc-ds evaluate ViT-B-32:openai runs/first --data ... --out results/    # several models
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from hnc_ds.config import EvaluateConfig
from hnc_ds.distributed import join_ranks, on_rank_zero, raise_on_all_ranks, rank
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import HELD_OUT, RETRIEVAL
from hnc_ds.evaluation.corruptions import Condition, Judged, robustness
from hnc_ds.evaluation.embed import (
    Corruption,
    ImageBatch,
    ShardImages,
    refuse_broken_weights,
)
from hnc_ds.evaluation.encoder import (
    EmbeddingCache,
    Encoder,
    cross_encoder_of,
    load_named_model,
    name_of,
)
from hnc_ds.evaluation.held_out import HardNegatives, Retrieval
from hnc_ds.evaluation.inputs import EvaluationInputs, read_inputs
from hnc_ds.evaluation.printed import models_table, results_table
from hnc_ds.evaluation.released.measure import measure_questions
from hnc_ds.evaluation.released.summary import CHOSEN, best_threshold
from hnc_ds.evaluation.results import (
    Item,
    ItemsHeader,
    PairItem,
    fingerprint,
    items_path,
    read_items,
    write_results,
)
from hnc_ds.evaluation.similarity import ScoredSet, Scorer, Thresholds
from hnc_ds.model.load import needs_transformers
from hnc_ds.records import Result
from hnc_ds.shards.reader import ShardReader

if TYPE_CHECKING:
    from hnc_ds.model.cross_encoder import CrossEncoder

Measure = HardNegatives | Retrieval

MEASURES: dict[str, type[Measure]] = {one.benchmark: one for one in (HardNegatives, Retrieval)}


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of one model."""

    results: list[Result]
    header: ItemsHeader
    items: Iterable[Item]
    """In the order of benchmarks and shards; computed lazily, can be iterated once."""


def measure(
    scorer: Scorer,
    reader: ShardReader,
    inputs: EvaluationInputs,
    folder: Path,
    image_batches: Iterable[ImageBatch] | None = None,
) -> Measured:
    """Compute the chosen measures; writes nothing. A collective.

    Args:
        scorer: The model.
        reader: Reader of the shards.
        inputs: Measures, corruptions and seed.
        folder: Future folder of the results; the header's shards are relative to it.
        image_batches: Batches of ``scorer.read``, if they are in memory already.

    Raises:
        UserError: The shards hold nothing that a measure needs, or more than 1 % of the images
            cannot be decoded.
    """
    images = scorer.shards(reader, image_batches)
    samples = [reader.sample(index) for index in images.samples]
    caption_ids: dict[str, int] = {}
    measures: dict[str, Measure] = {}
    for name in inputs.held_out:
        measures[name] = MEASURES[name](samples, caption_ids)
        if not len(measures[name]):
            raise UserError(
                f"{reader.location}: holds no {HELD_OUT[name].title.lower()}; generate and pack "
                f"them first, or choose other benchmarks (--benchmarks)"
            )
    captions = list(caption_ids)
    similarity, too_long = scorer.similarity(images, captions)
    keys = [(index, reader.key(index)) for index in images.samples]
    found = ScoredSet(keys, captions, similarity)
    scored = [one.score(found, scorer.name, inputs.seed) for one in measures.values()]
    rows = [row for own, _ in scored for row in own]
    header = ItemsHeader(
        model=scorer.name,
        shards=reader.location_from(folder),
        fingerprint=fingerprint(reader.index),
        images=len(images.samples),
        captions=len(captions),
        too_long=too_long,
        unreadable=tuple(reader.key(index) for index in images.unreadable),
        seed=inputs.seed,
        thresholds=dict(scorer.chosen),
    )
    return Measured(
        [*rows, *_robustness(measures, found, scorer, reader, inputs)],
        header,
        chain.from_iterable(items for _, items in scored),
    )


def _robustness(
    measures: Mapping[str, Measure],
    clean: ScoredSet,
    scorer: Scorer,
    reader: ShardReader,
    inputs: EvaluationInputs,
) -> Iterator[Result]:
    """Rows of all measures on corrupted images; embeddings are made once per condition."""
    if not inputs.conditions:
        return

    def judge(scored: ScoredSet) -> dict[tuple[str, str], Judged]:
        return {
            (benchmark, metric): judged
            for benchmark, one in measures.items()
            for metric, judged in one.judge(scored).items()
        }

    def judge_corrupted(condition: Condition) -> dict[tuple[str, str], Judged]:
        corruption = Corruption(*condition, inputs.seed)
        worse = scorer.corrupted(clean.similarity, ShardImages(reader), corruption)
        return judge(replace(clean, similarity=worse))

    scores = robustness(judge(clean), inputs.conditions, judge_corrupted, inputs.seed)
    for (benchmark, metric), group, interval in scores:
        version = HELD_OUT[benchmark].version
        yield Result(scorer.name, benchmark, version, metric, group, *astuple(interval))


def evaluate(config: EvaluateConfig) -> None:
    """Score models, write results and items, and print tables. Ranks share the encoding; results do
    not depend on their number.

    Raises:
        UserError: A model, shards, a benchmark, files or images do not exist; there is nothing to
            measure on; an output cannot be written.
    """
    device = join_ranks()
    outs = raise_on_all_ranks(lambda: output_files(config, config.out))
    chosen = raise_on_all_ranks(lambda: chosen_thresholds(config))
    inputs = raise_on_all_ranks(lambda: read_inputs(config, config.corruptions))
    files: dict[str, Path] = {}
    for reference, out, threshold in zip(config.models, outs, chosen, strict=True):
        scorer = _load_scorer(reference, device, config, threshold)
        own = inputs if config.benchmarks else affordable(scorer, inputs)
        if own is not inputs and rank() == 0:
            print(
                f"{scorer.name}: a cross-encoder scores every image with every caption for "
                f"retrieval, which is left out; --benchmarks {' '.join(inputs.held_out)} has it"
            )
        measured = measure_all(scorer, own, out.parent)
        on_rank_zero(partial(write_results, out, measured.results, measured.header, measured.items))
        if rank() == 0:
            print(results_table(measured.results, measured.header, str(out), config.all))
            print(f"wrote {out} and {items_path(out)}")
        files[scorer.name] = out
    if rank() == 0 and len(files) > 1:
        print(f"\n{models_table(files, config.seed, config.all)}")


def affordable(scorer: Scorer, inputs: EvaluationInputs) -> EvaluationInputs:
    """Without retrieval on shards, whose cost is images times captions, if the model has no
    embeddings and there is something else."""
    pairs = tuple(name for name in inputs.held_out if name != RETRIEVAL)
    if scorer.searches or not pairs or pairs == inputs.held_out:
        return inputs
    return replace(inputs, held_out=pairs)


def _load_scorer(
    reference: str, device: torch.device, config: EvaluateConfig, chosen: Thresholds
) -> Scorer:
    folder = raise_on_all_ranks(lambda: cross_encoder_of(reference))
    if folder is not None:
        matching = raise_on_all_ranks(partial(load_matching_model, reference, folder)).to(device)
        from hnc_ds.evaluation.cross_scorer import CrossScorer  # and transformers with it

        name = config.name or name_of(reference)
        return CrossScorer(matching, device, config.batch, config.workers, name, chosen)
    named = raise_on_all_ranks(lambda: load_named_model(reference))
    model = named.model.to(device).eval()
    cache = None if config.cache is None else EmbeddingCache(config.cache, model, device)
    name = config.name or named.name
    return Encoder(model, device, config.batch, config.workers, cache, name, chosen)


def load_matching_model(reference: str, folder: str) -> "CrossEncoder":
    """Load an image-text matching model, on the CPU.

    Args:
        reference: The name that the user gave.
        folder: Result of ``cross_encoder_of``.

    Raises:
        UserError: transformers is missing, the model cannot be loaded, or its weights are not
            finite.
    """
    with needs_transformers(reference):
        from hnc_ds.model.cross_encoder import load_cross_encoder
    model = load_cross_encoder(folder)
    refuse_broken_weights(model, name_of(reference))
    return model


def measure_all(
    scorer: Scorer,
    inputs: EvaluationInputs,
    folder: Path,
    image_batches: Iterable[ImageBatch] | None = None,
) -> Measured:
    """All scores of one model; writes nothing. A collective.

    Args:
        scorer: The model.
        inputs: Data to measure on.
        folder: Future folder of the results; the header's shards are relative to it.
        image_batches: Decoded images of the shards, if they are in memory already.

    Raises:
        UserError: As ``measure`` and ``measure_questions``.
    """
    header = ItemsHeader(model=scorer.name, seed=inputs.seed, thresholds=dict(scorer.chosen))
    rows = list[Result]()
    items: list[Iterable[Item]] = []
    if inputs.reader is not None:
        measured = measure(scorer, inputs.reader, inputs, folder, image_batches)
        header, rows, items = measured.header, measured.results, [measured.items]
    for benchmark in inputs.questions:
        own, coverage, answered = measure_questions(scorer, benchmark, inputs)
        header = msgspec.structs.replace(header, sets={**header.sets, benchmark: coverage})
        rows, items = [*rows, *own], [*items, answered]
    if inputs.questions:
        header = msgspec.structs.replace(header, folders=inputs.images.folders())
    return Measured(rows, header, chain.from_iterable(items))


def chosen_thresholds(config: EvaluateConfig) -> list[Thresholds]:
    """Of each model, the threshold with the fewest mistakes on the captions of --threshold_from.

    Raises:
        UserError: The files do not exist, are of another model, or hold no hard negatives.
    """
    if config.threshold_from is None:
        return [{}] * len(config.models)
    files = output_files(config, config.threshold_from, "--threshold_from")
    names = [config.name or name_of(reference) for reference in config.models]
    return [{CHOSEN: _chosen(*of_one)} for of_one in zip(files, names, strict=True)]


def _chosen(file: Path, name: str) -> float:
    header, items = read_items(items_path(file))
    if header.model != name:
        raise UserError(f"--threshold_from: {file} is of {header.model}, not of {name}")
    pairs = [item for item in items if isinstance(item, PairItem)]
    if not pairs:
        raise UserError(f"--threshold_from: {file} has no hard negatives; give shards' results")
    scores = [pair.positive_score for pair in pairs], [pair.negative_score for pair in pairs]
    label = np.repeat([True, False], len(pairs))
    return float(best_threshold(np.concatenate(scores).astype(np.float32), label))


def output_files(config: EvaluateConfig, out: Path, flag: str = "--out") -> list[Path]:
    """Results file of each model.

    Raises:
        UserError: The path does not fit the number of models, or two models share a file name.
    """
    names = [name_of(reference) for reference in config.models]
    if len(names) == 1:
        if out.suffix != ".json" or out.is_dir():
            raise UserError(f"{flag} is {out}; name a file that ends in .json")
        return [out]
    if out.suffix == ".json" or out.is_file():
        given = ", ".join(config.models)
        raise UserError(f"{flag} is {out}; for several models ({given}), name a folder")
    files = [re.sub(r"[^\w.@+=-]+", "-", name).strip("-.") for name in names]
    twice = [name for name, file in zip(names, files, strict=True) if Counter(files)[file] > 1]
    if twice:
        raise UserError(
            f"evaluate: {' and '.join(twice)} would share a file; evaluate them one by one"
        )
    return [out / f"{file}.json" for file in files]
