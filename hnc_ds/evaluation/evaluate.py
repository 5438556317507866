"""Measure a model: results.json, and every score behind it.

    hnc-ds evaluate runs/first --shards data/scenes/shards/val --out runs/first/results/val.json
    hnc-ds evaluate ViT-B-32:openai --data sugarcrepe=sugar-crepe/data --images coco2017=val2017 \\
        --out results/openai.json
"""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import msgspec
import torch

from hnc_ds.config import EvaluateConfig
from hnc_ds.distributed import enter, on_rank_zero, rank, together
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import chosen_benchmarks
from hnc_ds.evaluation.image_files import ImageFiles
from hnc_ds.evaluation.items import Item, ItemsHeader, items_path, write_results
from hnc_ds.evaluation.models import End, load_end
from hnc_ds.evaluation.on_questions import measure_questions
from hnc_ds.evaluation.on_shards import measure
from hnc_ds.evaluation.places import read_image_folders, read_places, read_questions
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.question_sets import ZERO_SHOT
from hnc_ds.evaluation.robustness import read_conditions
from hnc_ds.evaluation.table import results_table
from hnc_ds.records import Result
from hnc_ds.shards.reader import ShardReader


def evaluate(config: EvaluateConfig) -> None:
    """Score a model, write results and items, and print a table. Ranks that a launcher started
    share the encoding, and what they find is what one finds alone.

    Raises:
        UserError: No such model, shards, benchmark, files or pictures; nothing to measure on; an
            output that cannot be written.
    """
    device = join_ranks()
    reader, questions, files = together(lambda: _asked(config))
    end = together(lambda: load_end(str(config.run)))
    model = End(config.name or end.name, end.model.to(device).eval())
    header, rows = ItemsHeader(model=model.name, seed=config.seed), list[Result]()
    items: list[Iterable[Item]] = []
    if reader is not None:
        measured = measure(model.model, model.name, reader, device, config)
        header, rows, items = measured.header, measured.results, [measured.items]
    for name, asked in questions.items():
        own, coverage, answered = measure_questions(model, name, asked, files, device, config)
        header = msgspec.structs.replace(header, sets={**header.sets, name: coverage})
        rows, items = [*rows, *own], [*items, answered]
    on_rank_zero(lambda: write_results(config.out, rows, header, chain.from_iterable(items)))
    if rank() == 0:
        print(results_table(rows, header))
        print(f"wrote {config.out} and {items_path(config.out)}")


def _asked(
    config: EvaluateConfig,
) -> tuple[ShardReader | None, dict[str, list[Question]], ImageFiles]:
    """Everything that is to be measured on, read before a model is loaded."""
    _check_out(config.out)
    chosen_benchmarks(config.benchmarks)
    read_conditions(config.corruptions)
    places, folders = read_places(config.data), read_image_folders(config.images)
    if config.shards is None and not places:
        raise UserError("evaluate: nothing to measure on; give --shards, or --data and --images")
    if ZERO_SHOT in places:
        folders[ZERO_SHOT] = (places[ZERO_SHOT],)
    reader = None if config.shards is None else ShardReader(config.shards)
    questions = {
        name: read_questions(name, place, config.allow_missing) for name, place in places.items()
    }
    return reader, questions, ImageFiles(folders)


def join_ranks() -> torch.device:
    """Join the other ranks, if a launcher started several; this rank's GPU where there is one."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    has_gpu = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        enter("nccl" if has_gpu else "gloo", local_rank)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    return evaluation_device()


def evaluation_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_out(out: Path) -> None:
    if out.suffix != ".json" or out.is_dir():
        raise UserError(f"--out is {out}; name a file that ends in .json")
