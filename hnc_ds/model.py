"""Any open_clip model, with the parts that training needs: exact trimmed text, bounded temperature.

The only file of the trainer that knows open_clip. T distinct captions of L tokens, B images of
R pixels, width D.

A checkpoint is a folder in open_clip's own ``local-dir:`` layout (open_clip_config.json and
model.safetensors), so it opens with open_clip as it is.
"""

import gzip
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, SimpleTokenizer, default_bpe
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.shards.images import INTERPOLATIONS, RESIZE_MODES, ImageSettings

OWN_CONFIGS = Path(__file__).parent / "model_configs"
CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "model.safetensors"

LARGEST_LOGIT_SCALE = 100.0
"""CLIP's bound on 1 / tau (Radford et al. 2021, section 2.5)."""

TextEncoder = Callable[[Any, torch.Tensor], torch.Tensor]

CLIP_VOCABULARY = 49408
BYTE_TOKENS = 512
SPECIAL_TOKENS = 2

open_clip.add_model_config(OWN_CONFIGS)


class Tokenizer:
    """Captions -> token ids. Holds no weights, so workers can have it.

    Args:
        tokenize: An open_clip tokenizer.
        context_length: Tokens that the text tower takes.
        trim: Whether rows may be cut to the longest of a call.
    """

    def __init__(self, tokenize: Any, context_length: int, trim: bool) -> None:
        self.context_length = context_length
        self._tokenize = tokenize
        self._trim = trim

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """int64 [T, L], padded to the longest caption, or to the context where that is needed."""
        token_TL = cast(torch.Tensor, self._tokenize(list(captions), self.context_length))
        if not self._trim or not len(token_TL):
            return token_TL
        return token_TL[:, : int(token_TL.argmax(dim=1).max()) + 1]  # the end token is the largest

    def is_too_long(self, caption: str) -> bool:
        """Whether the end of the caption is cut off to fit the context."""
        if not isinstance(self._tokenize, SimpleTokenizer):
            longer = cast(torch.Tensor, self._tokenize([caption], self.context_length + 1))
            return bool(longer[0, -1] != longer[0].min())
        return len(self._tokenize.encode(caption)) + SPECIAL_TOKENS > self.context_length


class Clip(nn.Module):
    """The two towers and the temperature behind one forward, as DeepSpeed's hooks need it.

    Args:
        towers: An open_clip model whose ``logit_scale`` has one element, not none: DeepSpeed
            cannot broadcast a 0-dimensional parameter.
        tokenize: Its tokenizer.
        config: What open_clip_config.json says of it.
    """

    def __init__(self, towers: nn.Module, tokenize: Any, config: dict[str, Any]) -> None:
        super().__init__()
        self.towers: Any = towers
        self.config = config
        self.image_settings = _image_settings(config["preprocess_cfg"])
        context_length = config["model_cfg"]["text_cfg"].get(
            "context_length", DEFAULT_CONTEXT_LENGTH
        )
        self._encode_text, trim = _exact_text_encoder(towers, tokenize, context_length)
        self.tokenize = Tokenizer(tokenize, context_length, trim)
        self.fixed_scale: float | None = None
        if getattr(towers, "logit_bias", None) is not None:
            towers.logit_bias.requires_grad_(False)  # a softmax does not see it

    def fix_temperature(self, tau: float) -> None:
        """Stop learning the temperature and use ``tau``."""
        self.fixed_scale = 1 / tau
        with torch.no_grad():
            self.towers.logit_scale.fill_(-math.log(tau))
        self.towers.logit_scale.requires_grad_(False)

    def forward(
        self, images_B3RR: torch.Tensor, token_TL: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unit embeddings [B, D] and [T, D], and 1 / tau with one element."""
        return self.encode_images(images_B3RR), self.encode_texts(token_TL), self.logit_scale()

    def encode_images(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Embed uint8 pictures of the model's size.

        Returns:
            [B, D], rows of unit length, float32 or wider.
        """
        dtype = next(self.towers.visual.parameters()).dtype
        channels = (1, 3, 1, 1)
        mean = images_B3RR.new_tensor(self.image_settings.mean, dtype=torch.float32)
        std = images_B3RR.new_tensor(self.image_settings.std, dtype=torch.float32)
        pixels = (images_B3RR.float() / 255 - mean.view(channels)) / std.view(channels)
        return _unit_rows(self.towers.encode_image(pixels.to(dtype)))

    def encode_texts(self, token_TL: torch.Tensor) -> torch.Tensor:
        """Embed captions as ``tokenize`` gives them.

        Returns:
            [T, D], rows of unit length, float32 or wider.
        """
        return _unit_rows(self._encode_text(self.towers, token_TL))

    def logit_scale(self) -> torch.Tensor:
        """1 / tau, at most LARGEST_LOGIT_SCALE; one element."""
        log_scale = self.towers.logit_scale
        if self.fixed_scale is not None:
            return torch.full_like(log_scale, self.fixed_scale, dtype=torch.float32)
        return cast(torch.Tensor, _BoundedExp.apply(log_scale))

    def state_by_open_clip_name(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under open_clip's names; shared storage, not copies."""
        return dict(self.towers.state_dict())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What trains, for an optimizer: gains, biases and the temperature are not decayed.

        Source: the same split as open_clip's training script.
        """
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim < 2 or "ln" in name or "bias" in name]
        chosen = {id(p) for p in plain}
        decayed = [p for _, p in named if id(p) not in chosen]
        return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


class _BoundedExp(torch.autograd.Function):
    """exp(min(x, log 100)), whose gradient still leads back from beyond the bound.

    CLIP clamps the parameter after each step; under ZeRO and 16-bit engines that is undone by
    the optimizer's own copy. A plain clamp in the forward would stop the gradient, and OpenAI's
    weights start a hair beyond the bound. So the gradient passes, and what exceeds the bound is
    pulled back; both are linear in the ranks' gradients, hence exact over ranks.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: torch.Tensor) -> torch.Tensor:
        scale = log_scale.clamp(max=math.log(LARGEST_LOGIT_SCALE)).exp()
        ctx.save_for_backward(log_scale, scale)
        return scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        log_scale, scale = ctx.saved_tensors
        excess = (log_scale - math.log(LARGEST_LOGIT_SCALE)).clamp(min=0)
        return gradients[0] * scale + excess


def load_model(config: ModelConfig, seed: int) -> Clip:
    """Make the start model: by open_clip name and tag, local file, hub or folder reference.

    Args:
        config: Which model and weights.
        seed: Of the weights, where none are loaded.

    Returns:
        On the CPU, in float32, in training mode.

    Raises:
        UserError: Unknown name or tag, weights that cannot be had or do not fit.
    """
    _check_names(config)
    torch.manual_seed(seed)
    try:
        with _quiet_open_clip():
            settings = _model_settings(config)
            towers = open_clip.create_model(
                config.model,
                pretrained=config.pretrained,
                force_quick_gelu=bool(settings.get("quick_gelu", False)),
                nonscalar_logit_scale=True,
            )
            tokenize = _open_clip_tokenizer(config.model, settings)
    except ImportError as error:
        raise UserError(
            f"model {config.model}: needs a package that is missing ({error}); "
            "pip install 'hnc-ds[llava]' brings transformers"
        ) from error
    except (RuntimeError, OSError, ValueError, UnpicklingError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"model {config.model}, pretrained {config.pretrained}: cannot be loaded "
            f"({reason[0]}); download the weights where there is a network and pass the file "
            "with --pretrained"
        ) from error
    preprocess = {key: _plain(value) for key, value in towers.visual.preprocess_cfg.items()}
    return Clip(towers, tokenize, {"model_cfg": settings, "preprocess_cfg": preprocess}).train()


def forward_cost(clip: Clip) -> tuple[float, float]:
    """Matrix operations of one image and of one text token, forward, counted on probes."""
    size = clip.image_settings.size
    device = clip.towers.logit_scale.device
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    token_TL = clip.tokenize(["a photo of a cat on a sofa in a room"]).to(device)
    with torch.no_grad(), FlopCounterMode(display=False) as images:
        clip.encode_images(image)
    with torch.no_grad(), FlopCounterMode(display=False) as texts:
        clip.encode_texts(token_TL)
    return float(images.get_total_flops()), texts.get_total_flops() / token_TL.numel()


def load_folder(folder: Path) -> Clip:
    """Load a checkpoint folder, or any other in open_clip's local-dir layout.

    Raises:
        UserError: No such folder, or not of that layout.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} there; give a run or a checkpoint folder")
    return load_model(ModelConfig(model=f"local-dir:{folder}"), seed=0).eval()


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Without the libraries' own lines: what fails is raised, what matters the caller says."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


def _check_names(config: ModelConfig) -> None:
    if config.model.startswith(("hf-hub:", "local-dir:")):
        return
    known = open_clip.list_models()
    if config.model.replace("/", "-") not in known:
        raise UserError(
            f"model '{config.model}' is not one of open_clip's{did_you_mean(config.model, known)}"
        )
    if config.pretrained is None or Path(config.pretrained).is_file():
        return
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.pretrained not in tags:
        raise UserError(
            f"pretrained '{config.pretrained}' is neither a file nor a tag of {config.model}"
            f"{did_you_mean(config.pretrained, tags)}; tags: {', '.join(tags) or 'none'}"
        )


def _model_settings(config: ModelConfig) -> dict[str, Any]:
    """The model_cfg of open_clip_config.json, with the activation that the weights need."""
    if config.model.startswith("local-dir:"):
        path = Path(config.model.removeprefix("local-dir:")) / CONFIG_NAME
        try:
            return dict(json.loads(path.read_text())["model_cfg"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not an open_clip configuration ({error!r})") from error
    settings: Any = deepcopy(open_clip.get_model_config(config.model))
    if config.pretrained and not Path(config.pretrained).is_file():
        tag = open_clip.get_pretrained_cfg(config.model, config.pretrained)
        if tag.get("quick_gelu"):  # open_clip only warns, and computes something else
            settings["quick_gelu"] = True
    return cast(dict[str, Any], settings)


def _open_clip_tokenizer(model: str, settings: dict[str, Any]) -> Any:
    """open_clip's tokenizer; for a smaller vocabulary, the first of CLIP's merges."""
    text = settings["text_cfg"]
    vocabulary = text.get("vocab_size", CLIP_VOCABULARY)
    if "hf_tokenizer_name" in text or vocabulary >= CLIP_VOCABULARY:
        return open_clip.get_tokenizer(model)
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).split(b"\n")
    kept = merges[: 1 + vocabulary - BYTE_TOKENS - SPECIAL_TOKENS]  # the first line is a header
    return SimpleTokenizer(
        io.BytesIO(gzip.compress(b"\n".join(kept))),
        context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
    )


def _image_settings(preprocess: dict[str, Any]) -> ImageSettings:
    size = preprocess["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise UserError(
            f"the model takes pictures of {size} pixels; only square ones are supported"
        )
    for setting, known in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
        if preprocess[setting] not in known:
            raise UserError(f"the model's {setting} '{preprocess[setting]}' is not supported")
    return ImageSettings(
        size=sides.pop(),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        interpolation=preprocess["interpolation"],
        resize_mode=preprocess["resize_mode"],
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _unit_rows(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


def _open_clip_text(towers: Any, token_TL: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, towers.encode_text(token_TL))


def _trimmed_clip_text(towers: Any, token_TL: torch.Tensor) -> torch.Tensor:
    """CLIP's text tower on its first L positions.

    Attention is causal and the feature is read at the end token, so what is left out behind it
    cannot change it. (open_clip's CLIP.encode_text adds all positions and takes no fewer.)
    """
    tower = getattr(towers, "text", towers)  # open_clip keeps CLIP's own in the model itself
    length = token_TL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_TLW = tower.token_embedding(token_TL).to(dtype)
    x_TLW = x_TLW + tower.positional_embedding[:length].to(dtype)
    x_TLW = tower.transformer(x_TLW, attn_mask=tower.attn_mask[:length, :length])
    x_TLW = tower.ln_final(x_TLW)
    end_T = token_TL.argmax(dim=1)
    x_TW = x_TLW[torch.arange(len(x_TLW), device=x_TLW.device), end_T]
    projection = tower.text_projection
    if projection is None:
        return cast(torch.Tensor, x_TW)
    return cast(torch.Tensor, projection(x_TW) if callable(projection) else x_TW @ projection)


def _exact_text_encoder(
    towers: Any, tokenize: Any, context_length: int
) -> tuple[TextEncoder, bool]:
    """How to encode text, and whether it may be trimmed, so that the result is the padded form's.

    Decided by a check and not by the model's name: towers without a causal mask, or that pool
    elsewhere, get the padding they were trained with.
    """
    probes = ["a", "the red star is above the blue ring", "two dogs and a cat on an old sofa"]
    trimmed_TL = Tokenizer(tokenize, context_length, True)(probes)
    padded_TL = Tokenizer(tokenize, context_length, False)(probes)
    training = towers.training
    towers.eval()
    try:
        with torch.no_grad():
            expected = _unit_rows(towers.encode_text(padded_TL))
            for encode in (_trimmed_clip_text, _open_clip_text):
                if _agrees(encode, towers, trimmed_TL, expected):
                    return encode, True
    finally:
        towers.train(training)
    return _open_clip_text, False


def _agrees(
    encode: TextEncoder, towers: Any, token_TL: torch.Tensor, expected: torch.Tensor
) -> bool:
    try:
        found = _unit_rows(encode(towers, token_TL))
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False  # a tower of another make
    return bool(torch.allclose(found, expected, atol=1e-5, rtol=0))
