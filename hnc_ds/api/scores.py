"""Scores of a model on shards and released benchmarks, as rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from hnc_ds.api.models import Loaded, load
from hnc_ds.config.evaluation import MeasuredOn
from hnc_ds.distributed import local_device
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.evaluate import affordable, measure_all
from hnc_ds.evaluation.inputs import read_inputs
from hnc_ds.evaluation.similarity import Scorer
from hnc_ds.launch import readers
from hnc_ds.model.clip import Clip
from hnc_ds.shards.remote import is_url

Paths = str | Path | Mapping[str, str | Path]
"""A path; or NAME=PATH,NAME=PATH as text or by name."""


def evaluate(
    model: str | Path | Loaded,
    on: Paths,
    *,
    images: Paths = "",
    benchmarks: Sequence[str] = (),
    corruptions: Sequence[str] = (),
    allow_missing: bool = False,
    batch: int = MeasuredOn.batch,
    workers: int | None = None,
    seed: int = MeasuredOn.seed,
    device: str | torch.device | None = None,
) -> list[dict[str, Any]]:
    """The rows of results.json as dictionaries: ``pandas.DataFrame(rows)`` is a table of them.

    Writes nothing, and prints only what is missing or occurs twice in the files. In a process group
    it is a collective.

    Args:
        model: A name as of ``load``, or what it returned.
        on: Shards of 'hnc-ds pack' (a folder or a URL); or released benchmarks and the paths of
            their files, as {'sugarcrepe': 'sugar-crepe/data'} or 'sugarcrepe=sugar-crepe/data'.
        images: Folders of a benchmark's images by source, as {'coco2017': 'val2017'}.
        benchmarks: Measures on shards: hnc-shards (hard negatives), retrieval. By default all, but
            no retrieval of a cross-encoder, which scores every image with every caption.
        corruptions: Also measure on corrupted images of the shards: all, fog, fog:3, ...
        allow_missing: Leave out questions whose files or images are missing.
        batch: Images per batch. Scores do not depend on it.
        workers: Processes that read and decode images; by default as many as 'hnc-ds evaluate' has.
        seed: Seed of the bootstrap and of corruptions.
        device: Where a model that is given by name is loaded; by default a GPU if there is one.

    Raises:
        UserError: The model, the shards, a benchmark, files or images do not exist, or a value is
            out of range.
    """
    shards, data = _shards_and_data(on)
    config = MeasuredOn(
        shards=shards,
        data=data,
        images=_flag(images),
        benchmarks=tuple(benchmarks),
        allow_missing=allow_missing,
        batch=batch,
        seed=seed,
        workers=readers() if workers is None else workers,
    )
    inputs = read_inputs(config, tuple(corruptions))
    if not isinstance(model, Loaded):
        model = load(model, local_device() if device is None else device)
    scorer = _scorer(model, config)
    inputs = inputs if benchmarks else affordable(scorer, inputs)
    with model.evaluating():
        return [structs.asdict(row) for row in measure_all(scorer, inputs, Path()).results]


def _shards_and_data(on: Paths) -> tuple[str | None, str]:
    """Which of --shards and --data is given, and its value.

    Raises:
        UserError: A benchmark without its path.
    """
    text = _flag(on)
    if isinstance(on, Mapping):
        return None, text
    if text in RELEASED and not Path(text).exists():
        raise UserError(f"evaluate: where are the files of {text}? give {{'{text}': PATH}}")
    is_data = "=" in text and not Path(text).exists() and not is_url(text)
    return (None, text) if is_data else (text, "")


def _flag(paths: Paths) -> str:
    """``NAME=PATH,NAME=PATH``, or the text."""
    if not isinstance(paths, Mapping):
        return str(paths)
    return ",".join(f"{name}={path}" for name, path in paths.items())


def _scorer(loaded: Loaded, config: MeasuredOn) -> Scorer:
    own, device = loaded.own, loaded.device
    if isinstance(own, Clip):
        return Encoder(own, device, config.batch, config.workers, name=loaded.name)
    from hnc_ds.evaluation.cross_scorer import CrossScorer  # and transformers with it

    return CrossScorer(own, device, config.batch, config.workers, loaded.name)
