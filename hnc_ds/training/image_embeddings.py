"""Embeddings of a frozen image tower, computed once instead of at every visit of an image.

Without a random crop an image always gives the same embedding, as a frozen tower is in evaluation
mode. So all images are encoded before the first step, through the same loader and the same batch
size as in training (a matrix product of another height may round differently), and kept in the
run's folder, where a resumed run finds them:

    runs/NAME/image_embeddings-KEY.npy     float32 [N, D]; rows of images that cannot be decoded
                                           are not a number

N images of the shards, D width.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hnc_ds.atomic_files import atomic_file, writing
from hnc_ds.config import TrainConfig
from hnc_ds.distributed import (
    all_gather_no_grad,
    all_gather_object,
    on_rank_zero,
    raise_if_any,
    raise_on_all_ranks,
    rank,
    world_size,
)
from hnc_ds.engine.engine import Engine, is_accelerated
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip, state_sha256
from hnc_ds.reading import reading
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training.feed import batches

NAME = "image_embeddings"

DEEPSPEED = ("bf16", "fp16", "torch_autocast", "train_batch_size", "gradient_accumulation_steps")
"""Keys of DeepSpeed's JSON that the embeddings depend on, besides the ZeRO stage."""


def encodes_once(config: TrainConfig, clip: Clip, data: TrainingData, batch: int) -> bool:
    """Whether a run encodes every image once.

    Args:
        config: Settings of the run.
        clip: With its frozen parameters chosen.
        data: Its data.
        batch: Images of all ranks in a step.

    Raises:
        UserError: It should, but the image tower trains, or images are cropped at random.
    """
    wanted = config.encode_images_once
    if wanted == "never":
        return False
    missing = [
        *([] if clip.is_frozen("image") else ["a frozen image tower (--towers text)"]),
        *([] if config.data.crop >= 1 else ["--crop 1"]),
    ]
    if wanted == "always" and missing:
        raise UserError(f"encode_images_once needs {' and '.join(missing)}")
    visits = config.steps * batch
    return not missing and (wanted == "always" or visits > len(data.reader))


def key_of(clip: Clip, deepspeed: Mapping[str, Any], shards: str) -> str:
    """Name of the embeddings: changes with everything that they depend on.

    Args:
        clip: The model, before the engine has it.
        deepspeed: DeepSpeed's JSON, resolved.
        shards: Fingerprint of the shards' images.
    """
    weights = {n: t for n, t in clip.state_by_open_clip_name().items() if n.startswith("visual.")}
    settings = {
        "view": asdict(clip.image_settings),
        "shards": shards,
        "deepspeed": [deepspeed.get(name) for name in DEEPSPEED],
        "stage": deepspeed.get("zero_optimization", {}).get("stage"),
        "ranks": world_size(),
    }
    tower = state_sha256(weights, clip.config)
    described = json.dumps([tower, settings], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def image_embeddings(
    run: Path, key: str, engine: Engine, data: TrainingData, workers: int | None
) -> NDArray[np.float32]:
    """The embeddings [N, D], mapped from the run's file; written first if it is not there.

    A collective.

    Args:
        run: Folder of the run, on a file system that all ranks see.
        key: Result of ``key_of``.
        engine: Holds the model.
        data: This rank's data.
        workers: Processes that read and decode.

    Raises:
        UserError: On every rank: shards are damaged, the disk is full, an embedding is not finite,
            a rank does not see the file.
    """
    path = run / f"{NAME}-{key}.npy"
    if not on_rank_zero(path.is_file):
        _encode(path, engine, data, workers)
    if not all(all_gather_object(path.is_file())):
        raise UserError(
            f"{path}: not every rank sees this file; put --run on a file system that all nodes "
            "share, or pass --encode_images_once never"
        )
    with reading(path, "remove it", "not an array", by="numpy"):
        found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def with_embeddings(batch: Batch, embedding_ND: NDArray[np.float32], pin: bool) -> Batch:
    """A batch that was read without images, with the embeddings of its images instead."""
    rows_BD = torch.from_numpy(embedding_ND[batch.image_index_B.numpy()])
    return batch._replace(images_B3RR=rows_BD.pin_memory() if pin else rows_BD)


def unreadable(embedding_ND: NDArray[np.float32]) -> frozenset[int]:
    """Numbers of the images that cannot be decoded."""
    return frozenset(np.flatnonzero(np.isnan(embedding_ND[:, 0])).tolist())


def _encode(path: Path, engine: Engine, data: TrainingData, workers: int | None) -> None:
    count, batch = len(data.reader), data.rows * world_size()
    steps = range(-(-count // batch))
    found = batches(data.in_order(), steps, workers, is_accelerated())
    disable = None if rank() == 0 else True
    with ExitStack() as stack:
        file = raise_on_all_ranks(lambda: _opened(stack, path))
        for step in tqdm(steps, "images", unit="batch", disable=disable):
            read = next(found)
            raise_if_any(str(read) if isinstance(read, UserError) else None)
            assert isinstance(read, Batch)
            rows_ND = _embeddings(engine, read, step * batch + rank() * data.rows, count)
            raise_on_all_ranks(partial(_append, path, file, rows_ND[: count - step * batch], count))
        raise_on_all_ranks(stack.close)


def _embeddings(engine: Engine, batch: Batch, first: int, count: int) -> torch.Tensor:
    """The embeddings of a step's images on all ranks, in their order. A collective."""
    expected_B = torch.arange(first, first + len(batch.positive_B)) % count
    parts = batch.images_B3RR.to(engine.device).chunk(engine.micro_batches)
    with torch.no_grad():
        rows_BD = torch.cat([engine.forward(part, None)[0] for part in parts]).float()
    broken = not bool(rows_BD.isfinite().all())
    raise_if_any("an embedding of the image tower is not finite" if broken else None)
    rows_BD[(batch.image_index_B != expected_B).to(rows_BD.device)] = torch.nan  # of a neighbour
    return all_gather_no_grad(rows_BD)


def _opened(stack: ExitStack, path: Path) -> BinaryIO | None:
    """The new file, on rank 0."""
    return stack.enter_context(atomic_file(path)) if rank() == 0 else None


def _append(path: Path, file: BinaryIO | None, rows_ND: torch.Tensor, count: int) -> None:
    """Write a step's rows, after a header of ``count`` rows if they are the first.

    Raises:
        UserError: The disk is full.
    """
    if file is None:
        return
    with writing(path):  # here, as the other ranks wait for the step's outcome
        if not file.tell():
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, rows_ND.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(rows_ND.cpu().numpy().astype("<f4").tobytes())
