"""Measure models: results.json, and every score behind it.

    hnc-ds evaluate runs/first --shards data/scenes/shards/val --out runs/first/results/val.json
    hnc-ds evaluate ViT-B-32:openai --data sugarcrepe=sugar-crepe/data --images coco2017=val2017 \\
        --out results/openai.json
    hnc-ds evaluate ViT-B-32:openai runs/first --data ... --out results/    # side by side
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec
import torch

from hnc_ds.config import EvaluateConfig
from hnc_ds.distributed import enter, on_rank_zero, own_device, rank, together
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import chosen_benchmarks
from hnc_ds.evaluation.embed import PictureBatch
from hnc_ds.evaluation.embedding_cache import EmbeddingCache
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.image_files import ImageFiles
from hnc_ds.evaluation.items import Item, ItemsHeader, items_path, write_results
from hnc_ds.evaluation.models import load_end, name_of
from hnc_ds.evaluation.on_questions import measure_questions
from hnc_ds.evaluation.on_shards import Measured, measure
from hnc_ds.evaluation.places import find_images, read_places, read_questions
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.robustness import read_conditions
from hnc_ds.evaluation.side_by_side import models_table
from hnc_ds.evaluation.table import results_table
from hnc_ds.records import Result
from hnc_ds.shards.reader import ShardReader


@dataclass(frozen=True)
class Asked:
    """What models are measured on."""

    reader: ShardReader | None
    questions: dict[str, list[Question]]
    """By released benchmark."""
    files: ImageFiles


def evaluate(config: EvaluateConfig) -> None:
    """Score models, write results and items, and print a table. Ranks that a launcher started
    share the encoding, and what they find is what one finds alone.

    Raises:
        UserError: No such model, shards, benchmark, files or pictures; nothing to measure on; an
            output that cannot be written.
    """
    device = join_ranks()
    outs = together(lambda: output_files(config))
    asked = together(lambda: read_asked(config))
    files: dict[str, Path] = {}
    for reference, out in zip(config.models, outs, strict=True):
        own = replace(config, models=(reference,), out=out)
        measured = _measure_model(reference, asked, device, own)
        on_rank_zero(partial(write_results, out, measured.results, measured.header, measured.items))
        if rank() == 0:
            print(results_table(measured.results, measured.header))
            print(f"wrote {out} and {items_path(out)}")
        files[measured.header.model] = out
    if rank() == 0 and len(files) > 1:
        print(f"\n{models_table(files, config.seed)}")


def _measure_model(
    reference: str, asked: Asked, device: torch.device, config: EvaluateConfig
) -> Measured:
    end = together(lambda: load_end(reference))
    model = end.model.to(device).eval()
    cache = None if config.cache is None else EmbeddingCache(config.cache, model, device)
    name = config.name or end.name
    encoder = Encoder(model, device, config.batch, config.workers, cache, name)
    return measure_all(encoder, name, asked, config)


def measure_all(
    encoder: Encoder,
    name: str,
    asked: Asked,
    config: EvaluateConfig,
    pictures: Iterable[PictureBatch] | None = None,
) -> Measured:
    """Everything that is asked, of one model; writes nothing. A collective.

    Args:
        encoder: Of the model.
        name: What results call it.
        asked: What it is measured on.
        config: As of 'hnc-ds evaluate'.
        pictures: Those of the shards, if they were read before.

    Raises:
        UserError: As ``measure`` and ``measure_questions``.
    """
    header, rows = ItemsHeader(model=name, seed=config.seed), list[Result]()
    items: list[Iterable[Item]] = []
    if asked.reader is not None:
        measured = measure(encoder, name, asked.reader, config, pictures)
        header, rows, items = measured.header, measured.results, [measured.items]
    for benchmark, questions in asked.questions.items():
        own, coverage, answered = measure_questions(
            encoder, name, benchmark, questions, asked.files, config
        )
        header = msgspec.structs.replace(header, sets={**header.sets, benchmark: coverage})
        rows, items = [*rows, *own], [*items, answered]
    if asked.questions:
        header = msgspec.structs.replace(header, folders=asked.files.told())
    return Measured(rows, header, chain.from_iterable(items))


def read_asked(config: EvaluateConfig) -> Asked:
    """Everything that models are to be measured on.

    Raises:
        UserError: No such shards, benchmark or files; nothing to measure on.
    """
    chosen_benchmarks(config.benchmarks)
    read_conditions(config.corruptions)
    places = read_places(config.data)
    files = find_images(config.images, places)
    if config.shards is None and not places:
        raise UserError("evaluate: nothing to measure on; give --shards, or --data and --images")
    reader = None if config.shards is None else ShardReader(config.shards)
    questions = {
        name: read_questions(name, place, config.allow_missing) for name, place in places.items()
    }
    return Asked(reader, questions, files)


def output_files(config: EvaluateConfig) -> list[Path]:
    """Where the results of each model go.

    Raises:
        UserError: A report would not find them there, or two models have one name.
    """
    out, names = config.out, [name_of(reference) for reference in config.models]
    if len(names) == 1:
        if out.suffix != ".json" or out.is_dir():
            raise UserError(f"--out is {out}; name a file that ends in .json")
        return [out]
    if out.suffix == ".json" or out.is_file():
        raise UserError(f"--out is {out}; of several models it is a folder")
    files = [re.sub(r"[^\w.@+=-]+", "-", name).strip("-.") for name in names]
    twice = [name for name, file in zip(names, files, strict=True) if Counter(files)[file] > 1]
    if twice:
        raise UserError(f"evaluate: {' and '.join(twice)} would share a file; name them one by one")
    return [out / f"{file}.json" for file in files]


def join_ranks() -> torch.device:
    """Join the other ranks, if a launcher started several; this rank's GPU where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        local_device()  # which refuses what would only fail in NCCL
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        enter(backend, int(os.environ.get("LOCAL_RANK", "0")))
    return local_device()


def local_device() -> torch.device:
    """This process's GPU where there is one, as a launcher numbers it on its machine.

    Raises:
        RankError: There are GPUs, but fewer than processes.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(own_device(torch.cuda.device_count()))
    return evaluation_device()


def evaluation_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
