"""Load a Clip from an open_clip name and tag, a local file (FILE or FILE:TAG), or a folder.

A checkpoint is a folder in open_clip's ``local-dir:`` layout (open_clip_config.json and
model.safetensors), so open_clip can load it.
"""

import gzip
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer, default_bpe

from hnc_ds.config import ModelConfig
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.installing import pip_install
from hnc_ds.model.clip import Clip
from hnc_ds.model.evidence import VIEW, Decided, decide, given_by, of_file
from hnc_ds.model.hugging_face import (
    CLIP_VOCABULARY,
    has_tokenizer,
    is_clip_folder,
    load_clip_folder,
    read_config,
)
from hnc_ds.model.text import SPECIAL_TOKENS, context_length
from hnc_ds.model.weights_file import fit, is_torchscript, read_weights
from hnc_ds.reading import kind_of, read_json, reading

BIG_VISION = (".npz", ".npy")
"""Files that open_clip converts itself."""
OPENAI = "openai"
"""Tag of what OpenAI published, in archives of TorchScript."""


def given_file(config: ModelConfig) -> "GivenFile | None":
    """Read the file; None without --pretrained, or if it is a tag.

    Raises:
        UserError: It cannot be read, or TAG is unknown.
    """
    given, tags = config.pretrained, open_clip.list_pretrained_tags_by_model(config.model)
    if given is None or given in tags:
        return None
    if Path(given).is_file():
        return GivenFile(config, Path(given), None)
    file, _, like = given.rpartition(":")
    if not Path(file).is_file():
        return None
    if like not in tags:
        raise UserError(
            f"pretrained '{given}': '{like}' is not a tag of {config.model}"
            f"{did_you_mean(like, tags)}; tags: {', '.join(tags) or 'none'}"
        )
    return GivenFile(config, Path(file), like)


class GivenFile:
    """A file of weights, read at once, or by ``fill`` if it is big_vision's.

    Args:
        config: Model and flags.
        file: The file.
        like: Tag of similar published weights.

    Raises:
        UserError: It is no file of weights.
    """

    def __init__(self, config: ModelConfig, file: Path, like: str | None) -> None:
        self._config, self._file, self._like = config, file, like
        self._named = f"model {config.model}, pretrained {config.pretrained}"
        self._state = None if file.suffix in BIG_VISION else read_weights(file)

    def decided(self) -> Decided:
        """The activation and preprocessing.

        Raises:
            UserError: They cannot be inferred, or the weights are of another architecture.
        """
        model = self._config.model
        like = self._like or (OPENAI if is_torchscript(self._file) else None)
        known = of_file(model, self._file, like, given_by(self._config))
        try:
            return decide(model, str(self._file), known)
        except UserError:
            self.fill(open_clip.create_model(model, pretrained_text=False))
            raise

    def fill(self, towers: Any) -> str:
        """Load the weights into an open_clip model. Returns a message on changes to them.

        Raises:
            UserError: They are of another architecture.
        """
        with reading(self._file, by="open_clip"):
            if self._state is not None:
                return fit(towers, self._state, self._named)
            open_clip.load_checkpoint(towers, str(self._file))
            return ""


LOCAL = "local-dir:"
ZIP = "a zip archive"

LARGEST_NUMBER, MOST_LAYERS = 2**20, 1000
"""Limits for a configuration; vocabularies have 250,000 words, towers about 50 layers."""

OWN_CONFIGS = Path(__file__).parent / "configs"
CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "model.safetensors"
OPEN_CLIPS_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of weights files on the hub."""
REFERENCES = ("hf-hub:", LOCAL)

BYTE_TOKENS = 512

open_clip.add_model_config(OWN_CONFIGS)


def load_model(config: ModelConfig, seed: int) -> Clip:
    """Load a model by open_clip name and tag, local file, hub or folder reference.

    Args:
        config: Which model and weights.
        seed: Seed for weights that are not loaded.

    Returns:
        On the CPU, in float32, in training mode.

    Raises:
        UserError: Unknown name or tag, or weights that cannot be loaded or do not fit.
    """
    config = replace(config, model=open_clip_name(config.model))
    _check_names(config)
    given = given_file(config)
    torch.manual_seed(seed)
    named = _check_files(config)
    with reading(named, _advice(config), "cannot be loaded", by="open_clip"), _quiet_open_clip():
        try:
            clip, message = _load(config, given)
        except ImportError as error:
            raise UserError(
                f"model {config.model}: needs a package that is missing ({error}); "
                f"{pip_install('llava')} brings transformers"
            ) from error
        except UserError as error:
            problem = str(error)
            raise UserError(problem if named in problem else f"{named}: {problem}") from error
    if message and rank() == 0:
        print(message, flush=True)
    return clip.train()


def without_weights(config: ModelConfig) -> ModelConfig:
    """The same architecture with random weights, where a name of open_clip's describes it. Nothing
    is downloaded for it."""
    if ":" in config.model:
        return config
    tag = open_clip.get_pretrained_cfg(open_clip_name(config.model), config.pretrained or "")
    quick = config.force_quick_gelu
    if quick is None and tag.get("quick_gelu"):
        quick = True
    return replace(config, pretrained=None, force_quick_gelu=quick)


def _load(config: ModelConfig, given: GivenFile | None) -> tuple[Clip, str]:
    """The model, and a message on inferred settings of a file of weights."""
    folder = Path(config.model.removeprefix(LOCAL))
    if config.model.startswith(LOCAL) and is_clip_folder(folder):
        towers, settings, view = load_clip_folder(folder, given_by(config))
        tokenize = _open_clip_tokenizer("", settings)
        return Clip(towers, tokenize, {"model_cfg": settings, "preprocess_cfg": view}), ""
    settings, here = _model_settings(config)
    _check_caption_head(settings)
    decided = given.decided() if given else None
    chosen = decided.settings if decided else given_by(config)
    settings |= _activation(settings, chosen.get("quick_gelu"))
    towers = open_clip.create_model(
        config.model,
        pretrained=None if given else config.pretrained,
        pretrained_text=given is None,
        require_pretrained=config.model.startswith(REFERENCES),
        force_preprocess_cfg={key: chosen[key] for key in VIEW if key in chosen},
        nonscalar_logit_scale=True,
        quick_gelu=bool(settings.get("quick_gelu", False)),
        **here,
    )
    if (config.pretrained is None or given) and not config.model.startswith(REFERENCES):
        initialize_caption_head(towers)
    message = f"{decided.message}{given.fill(towers)}" if given and decided else ""
    tokenize = _open_clip_tokenizer(config.model, settings)
    seen = towers.visual.preprocess_cfg
    preprocess = {key: list(v) if isinstance(v, tuple) else v for key, v in seen.items()}
    return Clip(towers, tokenize, {"model_cfg": settings, "preprocess_cfg": preprocess}), message


def initialize_caption_head(towers: Any) -> None:
    """Give CoCa's caption head the random projection that open_clip leaves as memory happens to be:
    other values for one seed, and NaN at times, with which no run resumes."""
    projection = getattr(getattr(towers, "text_decoder", None), "text_projection", None)
    if projection is not None:
        torch.nn.init.normal_(projection, std=len(projection) ** -0.5)  # as its init_parameters


def _check_caption_head(settings: Mapping[str, Any]) -> None:
    """Refuse towers that do not return what open_clip's class of the model takes: tokens beside the
    embedding for CoCa, which has a caption head, and the embedding alone for others."""
    needed = "multimodal_cfg" in settings
    for tower in ("vision_cfg", "text_cfg"):
        if bool(settings[tower].get("output_tokens", False)) != needed:
            why = "CoCa's caption head, multimodal_cfg, needs it" if needed else "only CoCa has it"
            raise UserError(
                f"model_cfg.{tower}.output_tokens is {str(not needed).lower()}, but {why}; set it "
                f"to {str(needed).lower()} in {CONFIG_NAME}"
            )


def _activation(settings: dict[str, Any], quick_gelu: bool | None) -> dict[str, Any]:
    """The activation as an entry of a configuration, if it differs from the configuration's."""
    same = quick_gelu is None or bool(settings.get("quick_gelu", False)) == quick_gelu
    return {} if same else {"quick_gelu": quick_gelu}


def _advice(config: ModelConfig) -> str:
    """Advice for a model that open_clip cannot load."""
    if config.model.startswith(LOCAL):
        return "copy the folder again"
    if config.model.startswith(REFERENCES):
        return "download it where there is a network, and give its folder as local-dir:FOLDER"
    if config.pretrained in open_clip.list_pretrained_tags_by_model(config.model):
        return (
            "download the weights where there is a network and pass the file with --pretrained "
            f"FILE:{config.pretrained}"
        )
    return "all files that it names must exist here"


def _check_files(config: ModelConfig) -> str:
    """Name of the model for messages. Raises UserError for a file of another kind in a folder."""
    files = list[Path]()
    if config.model.startswith(LOCAL):
        folder = Path(config.model.removeprefix(LOCAL))
        files = [folder / CONFIG_NAME, folder / WEIGHTS_NAME]
        _check_size(folder)
    for file in files:
        if (kind := kind_of(file)) and not kind.startswith(ZIP):  # torch.save writes zip
            raise UserError(f"{file}: is {kind}")
    if config.model.startswith(LOCAL):
        return str(folder)
    return f"model {config.model}, pretrained {config.pretrained}"


def _check_size(folder: Path) -> None:
    """Refuse a configuration with a much larger model than the weights, before it fills memory."""
    weights = folder / WEIGHTS_NAME
    if not (folder / CONFIG_NAME).is_file():
        return
    for name, value in _numbers(read_json(folder / CONFIG_NAME, "copy the folder again")):
        most = MOST_LAYERS if name == "layers" else LARGEST_NUMBER
        if abs(value) > most:
            raise UserError(f"{folder / CONFIG_NAME}: {name} is {value}; copy the folder again")
    if not weights.is_file() or b'"hf_model_name"' in (folder / CONFIG_NAME).read_bytes():
        return  # transformers has checks of its own
    try:
        with _quiet_open_clip(), torch.device("meta"):
            made = open_clip.create_model(f"{LOCAL}{folder}", load_weights=False)
    except Exception:  # reported when the model is created
        return
    need = sum(p.numel() for p in made.parameters())
    if (size := weights.stat().st_size) < need:  # a number has at least a byte
        raise UserError(
            f"{weights}: {size:,} bytes are too few for the {need:,} numbers of {CONFIG_NAME}; "
            "copy both again"
        )


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float):
        yield name, value


def open_clip_name(model: str) -> str:
    """open_clip's name for OpenAI's: ViT-L-14-336 for ViT-L/14@336px. References to the hub and to
    folders are unchanged."""
    if model.startswith((*REFERENCES, CROSS_ENCODERS)):
        return model
    return model.replace("/", "-").replace("@", "-").removesuffix("px")


def known_names() -> list[str]:
    """open_clip's models, and this project's own."""
    return list(open_clip.list_models())


def tags_of(model: str) -> list[str] | None:
    """The tags of an open_clip model's published weights; None if there is no such model."""
    name = open_clip_name(model)
    if name not in known_names():
        return None
    return list(open_clip.list_pretrained_tags_by_model(name))


def load_folder(folder: Path) -> Clip:
    """Load a checkpoint folder, or any other in open_clip's local-dir layout.

    Raises:
        UserError: No such folder, or another layout.
    """
    if is_clip_folder(folder):
        return load_model(ModelConfig(model=f"{LOCAL}{folder}"), seed=0).eval()
    for names in ((CONFIG_NAME,), (WEIGHTS_NAME, *OPEN_CLIPS_WEIGHTS)):
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"{folder}: no {names[0]} there; give a run or a checkpoint folder")
    return load_model(ModelConfig(model=f"{LOCAL}{folder}"), seed=0).eval()


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Silence open_clip's log; errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


NOT_HERE = (
    "is an image-text matching model, which 'hnc-ds train' and 'evaluate' alone take; name one of "
    "open_clip"
)
"""Message of other stages."""

CROSS_ENCODERS = "hf:"
"""Prefix of the names of image-text matching models (cross_encoder.py)."""


def is_cross_encoder(reference: str) -> bool:
    """Whether a name refers to an image-text matching model."""
    return reference.startswith(CROSS_ENCODERS)


@contextmanager
def needs_transformers(reference: str) -> Iterator[None]:
    """Report a missing transformers in a block that imports cross_encoder.py.

    Raises:
        UserError: It is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{reference}: needs transformers; {pip_install('llava')}") from error


def _check_names(config: ModelConfig) -> None:
    if is_cross_encoder(config.model):
        raise UserError(f"model {config.model}: {NOT_HERE}")
    if config.model.startswith(REFERENCES):
        if config.pretrained is not None:
            raise UserError(f"{config.model} has weights of its own; remove --pretrained")
        return
    known = known_names()
    if config.model not in known:
        raise UserError(
            f"model '{config.model}' is not one of open_clip's{did_you_mean(config.model, known)}"
        )
    file = (config.pretrained or "").rpartition(":")[0]
    if config.pretrained is None or Path(config.pretrained).is_file() or Path(file).is_file():
        return
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.pretrained not in tags:
        raise UserError(
            f"pretrained '{config.pretrained}' is neither a file nor a tag of {config.model}"
            f"{did_you_mean(config.pretrained, tags)}; tags: {', '.join(tags) or 'none'}"
        )


def architecture_config(model: str) -> dict[str, Any]:
    """A copy of the model_cfg that open_clip has for an architecture's name."""
    settings: dict[str, Any] = deepcopy(open_clip.get_model_config(model))
    return settings


def _model_settings(config: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """model_cfg with the activation that the weights need, and the keys that must be passed to
    open_clip because they depend on the folder's path."""
    if config.model.startswith(LOCAL):
        return _folder_settings(Path(config.model.removeprefix(LOCAL)))
    settings = architecture_config(config.model)
    tag = open_clip.get_pretrained_cfg(config.model, config.pretrained or "")
    if tag.get("quick_gelu"):  # open_clip only warns of a mismatch
        settings["quick_gelu"] = True
    return settings, {}


def _folder_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / CONFIG_NAME
    config = read_json(path)
    settings = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("text_cfg"), dict):
        raise UserError(f"{path}: not an open_clip configuration; it has no model_cfg.text_cfg")
    _check_numbers(path, settings)
    if settings["text_cfg"].get("hf_tokenizer_name") and not has_tokenizer(folder):
        raise UserError(
            f"{folder}: has no files of its tokenizer, which is Hugging Face's; save that of "
            f"{settings['text_cfg']['hf_tokenizer_name']} there with save_pretrained"
        )
    named, here = read_config(folder, config)
    return named, {"text_cfg": here["text_cfg"]} if here != named else {}


def _check_numbers(path: Path, settings: dict[str, Any]) -> None:
    """Refuse true for a number: it counts as 1, so a model may open and compute other values."""
    for section, of in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        given = settings.get(section)
        if not isinstance(given, dict):
            continue
        for field in fields(of):
            if type(field.default) in (int, float) and isinstance(given.get(field.name), bool):
                raise UserError(
                    f"{path}: model_cfg.{section}.{field.name} is true or false and is not a "
                    "number; take the model's own file again"
                )


def _open_clip_tokenizer(model: str, settings: dict[str, Any]) -> Any:
    """open_clip's tokenizer; with only the first of CLIP's merges for a smaller vocabulary."""
    text = settings["text_cfg"]
    vocabulary = text.get("vocab_size", CLIP_VOCABULARY)
    if "hf_tokenizer_name" in text or vocabulary >= CLIP_VOCABULARY:
        return open_clip.get_tokenizer(model)
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).split(b"\n")
    kept = merges[: 1 + vocabulary - BYTE_TOKENS - SPECIAL_TOKENS]  # the first line is a header
    return SimpleTokenizer(
        io.BytesIO(gzip.compress(b"\n".join(kept))), context_length=context_length(text)
    )
