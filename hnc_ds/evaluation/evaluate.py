"""Measure a checkpoint on held-out shards: results.json, and every score behind it.

    hnc-ds evaluate runs/first --shards data/scenes/shards/val --out runs/first/results/val.json

Composes the measures; the formulas lie in hard_negatives.py, retrieval.py and statistics.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hnc_ds.checkpoint import load_trained
from hnc_ds.config import EvaluateConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import EmbeddedImages, embed_images, embed_texts
from hnc_ds.evaluation.hard_negatives import Pairs, list_pairs, score_pairs, summarise_pairs
from hnc_ds.evaluation.items import (
    Item,
    ItemsHeader,
    PairItem,
    RankItem,
    fingerprint,
    items_path,
    write_results,
)
from hnc_ds.evaluation.retrieval import Gallery, build_gallery, rank_both_ways, summarise_ranks
from hnc_ds.evaluation.table import results_table
from hnc_ds.model.clip import Clip
from hnc_ds.records import Result
from hnc_ds.shards.reader import ShardReader


def evaluate(config: EvaluateConfig) -> None:
    """Score a run on shards, write results and items, and print a table.

    Raises:
        UserError: No such run or shards, shards without hard negatives, more than 1 % of the
            images unreadable, an output that cannot be written.
    """
    _check_out(config.out)
    reader = ShardReader(config.shards)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_trained(config.run, device).eval()
    name = config.name or model_name(config.run)
    measured = measure(model, name, reader, device, config)
    write_results(config.out, measured.results, measured.header, measured.items())
    print(results_table(measured.results, measured.header))
    print(f"wrote {config.out} and {items_path(config.out)}")


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything one evaluation gives."""

    results: list[Result]
    header: ItemsHeader
    images: list[tuple[int, str]]
    """Index in the shards and key of each readable image."""
    captions: list[str]
    pairs: Pairs
    scores: tuple[np.ndarray, np.ndarray]
    gallery: Gallery
    ranks: tuple[np.ndarray, np.ndarray]

    def items(self) -> Iterator[Item]:
        """One item per pair and one per image, in the order of the shards."""
        positive_P, negative_P = self.scores
        for row, image in enumerate(self.pairs.image_P):
            index, key = self.images[image]
            yield PairItem(
                image=index,
                key=key,
                statement=self.pairs.statements[row],
                type=self.pairs.types[self.pairs.type_P[row]],
                positive=self.captions[self.pairs.positive_P[row]],
                negative=self.captions[self.pairs.negative_P[row]],
                positive_score=float(positive_P[row]),
                negative_score=float(negative_P[row]),
            )
        for image, (text_rank, image_rank) in enumerate(zip(*self.ranks, strict=True)):
            caption = self.gallery.texts[self.gallery.text_of_image_N[image]]
            yield RankItem(*self.images[image], caption, int(text_rank), int(image_rank))


def measure(
    model: Clip, name: str, reader: ShardReader, device: torch.device, config: EvaluateConfig
) -> Measured:
    """All measures of a model on the samples of a reader; writes nothing."""
    embedded = embed_images(model, reader, device, batch=config.batch, workers=config.workers)
    samples = [reader.sample(index) for index in embedded.samples]
    caption_ids: dict[str, int] = {}
    pairs = list_pairs(samples, caption_ids)
    if not len(pairs):
        raise UserError(f"{reader.folder}: holds no hard negatives; generate and pack them first")
    gallery = build_gallery(samples)
    captions = list(caption_ids)
    text_TD, too_long = embed_texts(model, captions, device, batch=config.batch)
    scores = score_pairs(embedded.image_ND, text_TD, pairs)
    gallery_rows = torch.tensor([caption_ids[text] for text in gallery.texts], device=device)
    ranks = rank_both_ways(embedded.image_ND, text_TD[gallery_rows], gallery)
    results = summarise_pairs(name, pairs, *scores, config.seed)
    results += summarise_ranks(name, *ranks, config.seed)
    return Measured(
        results,
        _header(name, reader, embedded, captions, too_long, config.out),
        [(index, reader.key(index)) for index in embedded.samples],
        captions,
        pairs,
        scores,
        gallery,
        ranks,
    )


def _header(
    name: str,
    reader: ShardReader,
    embedded: EmbeddedImages,
    captions: Sequence[str],
    too_long: int,
    out: Path,
) -> ItemsHeader:
    return ItemsHeader(
        model=name,
        shards=reader.location_from(out.parent),
        fingerprint=fingerprint(reader.index),
        images=len(embedded.samples),
        captions=len(captions),
        too_long=too_long,
        unreadable=tuple(reader.key(index) for index in embedded.unreadable),
    )


def model_name(run: Path) -> str:
    """``first`` for runs/first, ``first/step-000500`` for one of its checkpoint folders."""
    folder = run.resolve()
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name}/{folder.name}"
    return folder.name


def _check_out(out: Path) -> None:
    if out.suffix != ".json" or out.is_dir():
        raise UserError(f"--out is {out}; name a file that ends in .json")
