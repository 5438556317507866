"""Embeddings in files, so that what a model encoded once is read the next time.

A file is of one set, one model and one view of pictures; its name is a sha256 over all of these, so
that nothing is ever found that would now come out otherwise. A file holds a sha256 of its tensors,
so that a damaged one is refused. Sets are kept whole: rows of a part
would come from matrix products of another height, which may round differently. The folder may be
removed at any time.

N readable images, T captions, width D.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from hnc_ds.distributed import from_every_rank, on_rank_zero, together
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import EmbeddedImages, PictureSource, Worse
from hnc_ds.evaluation.mix import own_state, state_sha256
from hnc_ds.model.clip import Clip
from hnc_ds.reading import reading
from hnc_ds.whole_files import write_whole, writing

Tensors = dict[str, torch.Tensor]

FORMAT = 2
DIGEST = "sha256"
"""Tensor of a file over all others in it."""


class EmbeddingCache:
    """What one model encoded, in a folder. Its methods are collectives.

    Args:
        folder: Made when there is something to keep.
        model: Its weights must stay as they are.
        device: Of the embeddings; another kind of device may round otherwise, and has its own.
    """

    def __init__(self, folder: Path, model: Clip, device: torch.device) -> None:
        self._folder, self._device = folder, device
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self._maker = {
            "format": FORMAT,
            "model": state_sha256(own_state(model), model.config),
            "view": json.loads(json.dumps(asdict(model.image_settings), default=str)),
            "context": model.tokenize.context_length,
            "torch": torch.__version__,
            "device": kind,
        }

    def pictures(
        self, pictures: PictureSource, worse: Worse | None, encode: Callable[[], EmbeddedImages]
    ) -> EmbeddedImages:
        """The kept embeddings of pictures, or those that ``encode`` gives, which are kept then.

        Raises:
            UserError: A file that cannot be read or written; what ``encode`` raises.
        """

        def made() -> Tensors:
            images = encode()
            return {
                "images": images.image_ND,
                "samples": torch.tensor(images.samples, dtype=torch.int64),
                "unreadable": torch.tensor(images.unreadable, dtype=torch.int64),
            }

        found = self._kept("images", [pictures.identity(), worse], made)
        samples, unreadable = (tuple(found[name].tolist()) for name in ("samples", "unreadable"))
        return EmbeddedImages(found["images"].to(self._device), samples, unreadable)

    def texts(
        self, captions: Sequence[str], encode: Callable[[], tuple[torch.Tensor, int]]
    ) -> tuple[torch.Tensor, int]:
        """As ``pictures``, of captions: float32 [T, D], and how many were cut."""

        def made() -> Tensors:
            text_TD, too_long = encode()
            return {"captions": text_TD, "too_long": torch.tensor(too_long)}

        found = self._kept("captions", list(captions), made)
        return found["captions"].to(self._device), int(found["too_long"])

    def _kept(self, kind: str, what: Any, make: Callable[[], Tensors]) -> Tensors:
        told = json.dumps([kind, self._maker, what], sort_keys=True)
        path = self._folder / f"{kind}-{hashlib.sha256(told.encode()).hexdigest()}.safetensors"
        if all(from_every_rank(path.is_file())):  # each rank reads for itself, if each can
            return together(lambda: _read(path))
        made = make()
        on_rank_zero(lambda: _write(path, made))
        return made


def _read(path: Path) -> Tensors:
    with reading(path, "remove it", by="safetensors"):
        found = load_file(path)
    digest = found.pop(DIGEST, None)
    if digest is None or not torch.equal(digest, _digest(found)):
        raise UserError(f"{path}: is damaged, its sha256 is another one; remove it")
    return found


def _digest(tensors: Tensors) -> torch.Tensor:
    """uint8 [32]."""
    return torch.frombuffer(bytearray.fromhex(state_sha256(tensors, {})), dtype=torch.uint8)


def _write(path: Path, tensors: Tensors) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        write_whole(path, save({**plain, DIGEST: _digest(plain)}))
