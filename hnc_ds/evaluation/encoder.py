"""Models by name, and what they encode images and captions with: device, batch, workers and cache.

    runs/first                       a run: its newest checkpoint
    runs/first/checkpoints/step-...  a checkpoint, or any folder in open_clip's local-dir layout
    ViT-B-32:openai                  an open_clip model with a tag or a file of weights; or ViT-B/32
    hf-hub:... local-dir:...         as in open_clip
    hf:FOLDER hf:ID                  an image-text matching model of transformers (cross_scorer.py)
    start                            the start model of a run

The cache is a folder of embeddings, so that a tower encodes a set only once. The name of a file is
a sha256 of everything its content depends on: set, the tower's weights, preprocessing, torch and
device. So models that differ in one tower share what the other one gives. The file holds a sha256
of its tensors, so that damage is detected. Sets are stored whole, because matrix products of
another height may round differently. The folder can be deleted at any time.

N readable images, T captions, width D.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.checkpoint import (
    SETTINGS_NAME,
    load_trained,
    newest_checkpoint,
    read_settings,
    trained_kind,
    updated,
)
from hnc_ds.config import ModelConfig
from hnc_ds.distributed import all_gather_object, on_rank_zero, raise_on_all_ranks
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.embed import (
    Corruption,
    EmbeddedImages,
    ImageBatch,
    ImageSource,
    embed_texts,
    encode_image_batches,
    refuse_broken_rows,
    refuse_broken_weights,
    shown,
)
from hnc_ds.evaluation.similarity import Classifier, Cosines, Scorer, Thresholds
from hnc_ds.model.clip import BESIDE_TOWERS, Clip, State, own_state, state_sha256
from hnc_ds.model.load import (
    CROSS_ENCODERS,
    NOT_HERE,
    is_cross_encoder,
    known_names,
    load_model,
    open_clip_name,
    tags_of,
)
from hnc_ds.reading import reading

OWN_START = "start"
OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model on the CPU."""

    name: str
    """Name in results."""
    model: Clip


def load_named_model(reference: str) -> NamedModel:
    """Load a run, a checkpoint folder or an open_clip model.

    Raises:
        UserError: The name is none of these, the model has no weights, or they are not finite.
    """
    named = NamedModel(name_of(reference), _load(reference))
    refuse_broken_weights(named.model, named.name)
    return named


def _load(reference: str) -> Clip:
    if Path(reference).is_dir():
        return load_trained(Path(reference), torch.device("cpu"))
    if reference.startswith(("hf-hub:", "local-dir:")):
        return load_model(ModelConfig(model=reference), seed=0)
    model, _, weights = reference.partition(":")
    tags = tags_of(model)
    if tags is None or not weights:
        raise UserError(f"{reference}: {_how_to_name(reference, model, tags)}")
    return load_model(ModelConfig(model=model, pretrained=weights), seed=0)


def _how_to_name(reference: str, model: str, tags: list[str] | None) -> str:
    """Why a reference cannot be loaded, and how to name a model."""
    if is_cross_encoder(reference):
        return NOT_HERE
    if Path(reference).is_file():
        return "a file; give its folder, or MODEL:FILE such as ViT-B-32:weights.safetensors"
    if tags is None:
        near = did_you_mean(open_clip_name(model), known_names())
        return (
            f"no such folder, and no model of open_clip{near}; give a run, a checkpoint folder, or "
            "an open_clip model with a tag or a file of weights, such as ViT-B-32:openai"
        )
    if not tags:
        return f"open_clip has no weights for this model; name a file of weights, as {model}:FILE"
    tag = OPENAI if OPENAI in tags else tags[0]
    return (
        f"name the weights: {model}:TAG, such as {model}:{tag}, or {model}:FILE; its tags are "
        f"{', '.join(tags)}"
    )


def cross_encoder_of(reference: str) -> str | None:
    """Folder or id of the cross-encoder that a name refers to: with the prefix, or a run or a
    checkpoint of one. None for other models.

    Raises:
        UserError: A run without a complete checkpoint.
    """
    if is_cross_encoder(reference):
        return reference.removeprefix(CROSS_ENCODERS)
    folder = Path(reference)
    if trained_kind(folder) is None:
        return None
    is_run = (folder / "checkpoints").is_dir()
    return str(newest_checkpoint(folder) if is_run else folder)


def name_of(reference: str) -> str:
    """Name in results of a model that the user refers to."""
    path = Path(reference.removeprefix(CROSS_ENCODERS))
    return model_name(path) if path.is_dir() else reference


def load_own_start(trained: Path) -> NamedModel:
    """The start model of a run, before its first step.

    Args:
        trained: The run, or a checkpoint in it.

    Raises:
        UserError: The path is not in a run, or the run's settings lack the model or the seed.
    """
    folder = trained.resolve()
    found = [path for path in (folder, *folder.parents[:3]) if (path / SETTINGS_NAME).is_file()]
    if not found:
        raise UserError(f"{trained}: is not in a run of 'hnc-ds train'; name the START model")
    run, where = found[0], f"{found[0] / SETTINGS_NAME}: settings.model"
    settings = read_settings(run).get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise UserError(f"{where}: is missing; name the START model")
    config = updated(ModelConfig(), settings["model"], where)
    if type(seed := settings.get("seed", 0)) is not int or seed not in range(2**63):
        raise UserError(f"{run / SETTINGS_NAME}: settings.seed is {seed!r}, not a whole number")
    start = NamedModel(f"{run.name}/{OWN_START}", load_model(config, seed))
    refuse_broken_weights(start.model, start.name)
    return start


def model_name(run: Path) -> str:
    """``first`` for runs/first, ``first/step-000500`` for one of its checkpoint folders."""
    folder = run.resolve()
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name}/{folder.name}"
    return folder.name


Tensors = dict[str, torch.Tensor]

FORMAT = 3
DIGEST = "sha256"
"""Name of the tensor with the sha256 of the others."""


class EmbeddingCache:
    """Embeddings of one model in a folder. Its methods are collectives.

    Args:
        folder: Created when the first file is written.
        model: Its weights must not change.
        device: Device of the embeddings. Each kind of device has its own files, as rounding may
            differ.
    """

    def __init__(self, folder: Path, model: Clip, device: torch.device) -> None:
        self._folder, self._device = folder, device
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        state = own_state(model)
        self._settings = {"format": FORMAT, "torch": torch.__version__, "device": kind}
        self._of_tower: dict[str, dict[str, Any]] = {
            "images": {
                "tower": _tower_sha256(model, state, is_image=True),
                "view": json.loads(json.dumps(asdict(model.image_settings), default=str)),
            },
            "captions": {
                "tower": _tower_sha256(model, state, is_image=False),
                "context": model.tokenize.context_length,
            },
        }

    def images(
        self,
        source: ImageSource,
        corruption: Corruption | None,
        encode: Callable[[], EmbeddedImages],
    ) -> EmbeddedImages:
        """Embeddings of images from the folder, or from ``encode``, which are then stored.

        Raises:
            UserError: A file cannot be read or written, or ``encode`` raises it.
        """

        def tensors() -> Tensors:
            images = encode()
            return {
                "images": images.image_ND,
                "samples": torch.tensor(images.samples, dtype=torch.int64),
                "unreadable": torch.tensor(images.unreadable, dtype=torch.int64),
            }

        found = self._load_or_store("images", [source.identity(), corruption], tensors)
        samples, unreadable = (tuple(found[name].tolist()) for name in ("samples", "unreadable"))
        return EmbeddedImages(samples, unreadable, found["images"].to(self._device))

    def texts(
        self, captions: Sequence[str], encode: Callable[[], tuple[torch.Tensor, int]]
    ) -> tuple[torch.Tensor, int]:
        """As ``images``, for captions: float32 [T, D], and how many were truncated."""

        def tensors() -> Tensors:
            text_TD, too_long = encode()
            return {"captions": text_TD, "too_long": torch.tensor(too_long)}

        found = self._load_or_store("captions", list(captions), tensors)
        return found["captions"].to(self._device), int(found["too_long"])

    def _load_or_store(self, kind: str, content: Any, encode: Callable[[], Tensors]) -> Tensors:
        settings = self._settings | self._of_tower[kind]
        key = json.dumps([kind, settings, content], sort_keys=True)
        path = self._folder / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        if all(all_gather_object(path.is_file())):  # ranks may not share the file system
            return raise_on_all_ranks(lambda: _read(path))
        tensors = encode()
        on_rank_zero(lambda: _write(path, tensors))
        return tensors


def _tower_sha256(model: Clip, state: State, is_image: bool) -> str:
    """Of one tower's weights, and of the configuration that both share with it."""
    weights = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith("visual.") == is_image and not name.startswith(BESIDE_TOWERS)
    }
    of_others = ("text_cfg" if is_image else "vision_cfg", "init_logit_scale", "init_logit_bias")
    settings = model.config["model_cfg"]
    return state_sha256(weights, {k: v for k, v in settings.items() if k not in of_others})


def _read(path: Path) -> Tensors:
    with reading(path, "remove it", by="safetensors"):
        found = load_file(path)
    digest = found.pop(DIGEST, None)
    if digest is None or not torch.equal(digest, _digest(found)):
        raise UserError(f"{path}: is damaged, its sha256 does not match; remove it")
    return found


def _digest(tensors: Tensors) -> torch.Tensor:
    """uint8 [32]."""
    return torch.frombuffer(bytearray.fromhex(state_sha256(tensors, {})), dtype=torch.uint8)


def _write(path: Path, tensors: Tensors) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        atomic_write(path, save({**plain, DIGEST: _digest(plain)}))


@dataclass(frozen=True)
class Encoder(Scorer):
    """Encodes with one model. Its methods are collectives."""

    model: Clip
    """On the device, in evaluation mode."""
    device: torch.device
    batch: int
    """Images per batch."""
    workers: int
    """Processes that read and decode images."""
    cache: EmbeddingCache | None = None
    name: str = "the model"
    """Name of the model in results and messages."""
    chosen: Thresholds = field(default_factory=dict)

    def images(
        self,
        source: ImageSource,
        corruption: Corruption | None = None,
        image_batches: Iterable[ImageBatch] | None = None,
    ) -> EmbeddedImages:
        """Encode all images that can be decoded.

        Args:
            source: Images of all ranks.
            corruption: Applied to every image.
            image_batches: Batches of ``read``, if they are in memory already.

        Raises:
            UserError: An embedding is not finite, or the cache fails.
        """
        if image_batches is not None:
            return self._encode_batches(source, image_batches)
        encode = partial(self._encode_batches, source, self.read(source, corruption))
        return encode() if self.cache is None else self.cache.images(source, corruption, encode)

    def texts(self, captions: Sequence[str]) -> tuple[torch.Tensor, int]:
        """Encode distinct captions; returns the values of ``embed_texts``, raises as ``images``."""
        encode = partial(self._encode_texts, captions)
        return encode() if self.cache is None else self.cache.texts(captions, encode)

    def similarity(self, images: EmbeddedImages, captions: Sequence[str]) -> tuple[Cosines, int]:
        """Cosines of encoded images with captions, and how many captions are truncated."""
        text_TD, too_long = self.texts(captions)
        return Cosines(images.image_ND, text_TD, self.chosen), too_long

    def classifier(self, prompts: Sequence[Sequence[str]]) -> Classifier:
        """Cosines with classes. The embedding of a class is the normalized mean of the normalized
        embeddings of its prompts; raises as ``images``."""
        distinct = list(dict.fromkeys(text for of_class in prompts for text in of_class))
        text_TD, _ = self.texts(distinct)
        row_of = {text: row for row, text in enumerate(distinct)}
        row_CP = torch.tensor([[row_of[text] for text in of_class] for of_class in prompts])
        mean_CD = text_TD[row_CP.to(text_TD.device)].mean(dim=1)
        class_CD = torch.nn.functional.normalize(mean_CD, dim=-1)
        return lambda similarity, rows: similarity._replace(text_TD=class_CD).grid(
            rows, range(len(class_CD))
        )

    def corrupted(self, clean: Cosines, source: ImageSource, corruption: Corruption) -> Cosines:
        """The same captions with corrupted images."""
        return clean._replace(image_ND=self.images(source, corruption).image_ND)

    def _encode_batches(
        self, source: ImageSource, image_batches: Iterable[ImageBatch]
    ) -> EmbeddedImages:
        images = encode_image_batches(self.model, image_batches, self.device)
        refuse_broken_rows(
            images.image_ND,
            "image",
            lambda row: source.name(images.samples[row]).strip(),
            self.model,
            self.name,
        )
        return images

    def _encode_texts(self, captions: Sequence[str]) -> tuple[torch.Tensor, int]:
        text_TD, too_long = embed_texts(self.model, captions, self.device)
        refuse_broken_rows(text_TD, "text", lambda row: shown(captions[row]), self.model, self.name)
        return text_TD, too_long
