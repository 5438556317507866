"""An open_clip model for training: two towers and a bounded temperature in one forward.

Its state by open_clip's names is copied, restored and hashed here.

T distinct captions of L tokens, B images of R pixels, width D.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnc_ds.errors import UserError
from hnc_ds.model.attention import use_tower_attention
from hnc_ds.model.half_precision import BATCH_NORMS
from hnc_ds.model.text import (
    Tokenizer,
    context_length,
    exact_text_form,
    packed_clip_text,
    packs_now,
    unit_rows,
    wide,
)
from hnc_ds.shards.images import INTERPOLATIONS, RESIZE_MODES, ImageSettings

LARGEST_LOGIT_SCALE = 100.0
"""CLIP's bound on 1 / tau (Radford et al. 2021, section 2.5). Weights that are published beyond it,
as SigLIP's (117), keep theirs as the bound."""
BEYOND = 1e-3
"""Excess of the logarithm over the bound that is no rounding; OpenAI's weights have less."""
SCALE = "init_logit_scale"
"""open_clip's key of model_cfg for the logarithm of 1 / tau."""

SIGLIP_BIAS = -10.0
"""Initial bias of SigLIP (Zhai et al. 2023, section 3.2), whose initial 1 / tau is 10."""

TOWERS = ("image", "text")
BESIDE_TOWERS = ("logit_scale", "logit_bias", "text_decoder")
"""Members of an open_clip model that belong to neither tower."""

Part = nn.Module | nn.Parameter


class Clip(nn.Module):
    """The two towers and the temperature in one forward, as DeepSpeed's hooks require.

    Args:
        towers: An open_clip model whose ``logit_scale`` has shape [1]: DeepSpeed cannot broadcast a
            0-dimensional parameter.
        tokenize: Its tokenizer.
        config: Content of its open_clip_config.json.
    """

    def __init__(self, towers: nn.Module, tokenize: Any, config: dict[str, Any]) -> None:
        super().__init__()
        self.towers: Any = towers
        self.config = config
        self.image_settings = _image_settings(config["preprocess_cfg"])
        self._statistics: dict[torch.device, torch.Tensor] = {}
        context = context_length(config["model_cfg"]["text_cfg"])
        use_tower_attention(towers)
        self._text_form = exact_text_form(towers, tokenize, context)
        self.tokenize = Tokenizer(tokenize, context, self._text_form.trims)
        self._text_files: dict[str, bytes] | None = None
        self.fixed_scale: float | None = None
        self.log_scale_bound = max(
            math.log(LARGEST_LOGIT_SCALE), float(config["model_cfg"].get(SCALE, 0))
        )
        """Logarithm of the largest 1 / tau."""
        self.low_rank_scale: float | None = None
        """Scale of LoRA adapters, if there are any."""
        self.reference: Clip | None = None
        self.is_compiled = False
        """Whether ``compile_blocks`` has compiled the blocks."""
        self._freeze_beside_towers()

    def fix_temperature(self, tau: float) -> None:
        """Stop learning the temperature and use ``tau``."""
        self.fixed_scale = 1 / tau
        with torch.no_grad():
            self.towers.logit_scale.fill_(-math.log(tau))
        self.towers.logit_scale.requires_grad_(False)

    def keep_scale(self) -> None:
        """Take the scale of weights beyond the bound as the bound of their training, and record it
        in the configuration, as a checkpoint's own scale may be another."""
        own = float(self.towers.logit_scale.detach())
        if self.log_scale_bound + BEYOND < own < math.inf:
            self.log_scale_bound = own
            self.config = {**self.config, "model_cfg": {**self.config["model_cfg"], SCALE: own}}

    def train_bias(self, initial: float | None) -> None:
        """Train the bias of the sigmoid loss, which a model without one gets.

        Args:
            initial: Its value; that of the model when None, or else SIGLIP_BIAS.
        """
        if not self.has_bias():
            scale = self.towers.logit_scale
            self.towers.logit_bias = nn.Parameter(torch.full_like(scale, SIGLIP_BIAS))
            settings = {**self.config["model_cfg"], "init_logit_bias": SIGLIP_BIAS}
            self.config = {**self.config, "model_cfg": settings}
        if initial is not None:
            with torch.no_grad():
                self.towers.logit_bias.fill_(initial)
        self.towers.logit_bias.requires_grad_(True)

    def tower(self, name: str) -> dict[str, Part]:
        """Modules and parameters of the tower 'image' or 'text', by name."""
        visual, text = self.towers.visual, getattr(self.towers, "text", self.towers)
        holder, not_part = (visual, ()) if name == "image" else (text, ("visual", *BESIDE_TOWERS))
        parts = (*holder.named_children(), *holder.named_parameters(recurse=False))
        return {name: part for name, part in parts if name not in not_part}

    def freeze(self, name: str) -> None:
        """Freeze the tower 'image' or 'text'."""
        for part in self.tower(name).values():
            part.requires_grad_(False)

    def is_frozen(self, name: str) -> bool:
        """Whether no parameter of a tower trains."""
        return not any(parameter.requires_grad for parameter in self._tower_parameters(name))

    def learns_temperature(self) -> bool:
        """Whether the temperature trains."""
        return bool(self.towers.logit_scale.requires_grad)

    def has_bias(self) -> bool:
        """Whether the model has the bias of the sigmoid loss."""
        return self._bias is not None

    def learns_bias(self) -> bool:
        """Whether the bias of the sigmoid loss trains."""
        return self._bias is not None and bool(self._bias.requires_grad)

    @property
    def _bias(self) -> nn.Parameter | None:
        return getattr(self.towers, "logit_bias", None)

    def _tower_parameters(self, name: str) -> Iterator[nn.Parameter]:
        for part in self.tower(name).values():
            yield from part.parameters() if isinstance(part, nn.Module) else (part,)

    def _freeze_beside_towers(self) -> None:
        """Freeze parameters without a gradient: decoders, and a bias that a softmax cancels."""
        used = {id(p) for name in TOWERS for p in self._tower_parameters(name)}
        for parameter in self.towers.parameters():
            if id(parameter) not in used and parameter is not self.towers.logit_scale:
                parameter.requires_grad_(False)

    def has_batch_statistics(self) -> bool:
        """Whether a layer in training mode normalizes over the batch."""
        return any(isinstance(module, BATCH_NORMS) and module.training for module in self.modules())

    def train(self, mode: bool = True) -> "Clip":
        """Set training mode; frozen towers stay in evaluation mode (statistics, dropout), and so do
        frozen batch norms of others."""
        super().train(mode)
        for name in TOWERS:
            if mode and self.is_frozen(name):
                for part in self.tower(name).values():
                    if isinstance(part, nn.Module):
                        part.eval()
        for module in self.modules():
            if isinstance(module, BATCH_NORMS) and _is_frozen(module):
                module.eval()
        if self.reference is not None:
            self.reference.eval()
        return self

    def keep_reference(self) -> None:
        """Keep a frozen copy of the model as reference; frozen parameters are shared."""
        shared: list[Any] = [p for p in self.parameters() if not p.requires_grad]
        memo = {id(part): part for part in (*shared, self.tokenize)}
        self.reference = deepcopy(self, memo).requires_grad_(False).eval()

    def forward(
        self,
        images_B3RR: torch.Tensor,
        token_TL: torch.Tensor | None,
        used_T: torch.Tensor | None = None,
        with_reference: bool = True,
    ) -> tuple[torch.Tensor, ...]:
        """Unit embeddings [B, D] and [T, D]; 1 / tau, bias and ``bound_pull`` with one element.

        With a reference model, also its embeddings and 1 / tau, as constants.

        Args:
            images_B3RR: uint8, or [B, D], what a frozen image tower made of them before.
            token_TL: Result of ``tokenize``; None to encode only images, which are returned alone.
            used_T: As in ``encode_texts``.
            with_reference: Whether to include the reference model.
        """
        are_encoded = images_B3RR.ndim == 2
        image_BD = images_B3RR if are_encoded else self.encode_images(images_B3RR)
        if token_TL is None:
            return (image_BD,)
        text_TD = self.encode_texts(token_TL, used_T)
        own = image_BD, text_TD, self.logit_scale(), self.logit_bias(), self.bound_pull()
        if self.reference is None or not with_reference:
            return own
        with torch.no_grad():  # a frozen tower is the same in both
            reference_BD = (
                own[0] if self.is_frozen("image") else self.reference.encode_images(images_B3RR)
            )
            frozen = self.is_frozen("text")
            reference_TD = own[1] if frozen else self.reference.encode_texts(token_TL, used_T)
            return (
                *own,
                reference_BD.detach(),
                reference_TD.detach(),
                self.reference.logit_scale(),
            )

    def encode_images(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Embed uint8 images of the model's size.

        Returns:
            [B, D], rows of unit length, float32 or wider.
        """
        dtype = next(self.towers.visual.parameters()).dtype
        return unit_rows(self.towers.encode_image(self.normalised(images_B3RR).to(dtype)))

    def normalised(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Normalized float32 pixels, in one copy that no backward pass keeps."""
        mean_311, std_311 = self._mean_and_std(images_B3RR.device)
        pixels_B3RR = images_B3RR.to(torch.float32, copy=True)
        return pixels_B3RR.div_(255).sub_(mean_311).div_(std_311)

    def _mean_and_std(self, device: torch.device) -> torch.Tensor:
        """Mean and deviation of each channel, [2, 3, 1, 1]; cached, as the copy synchronizes."""
        if device not in self._statistics:
            values = self.image_settings.mean, self.image_settings.std
            with torch.inference_mode(False):  # it may train later
                made = torch.tensor(values, dtype=torch.float32, device=device)
            self._statistics[device] = made.view(2, 3, 1, 1)
        return self._statistics[device]

    def encode_texts(
        self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed tokenized captions.

        Args:
            token_TL: Result of ``tokenize``.
            used_T: int64, on the host: tokens of each caption without padding, as from
                ``tokenize.used_tokens``. Counted here if None, which synchronizes with the device.

        Returns:
            [T, D], rows of unit length, float32 or wider.
        """
        used_T = self._used(token_TL) if used_T is None else used_T
        packs = self._packs(token_TL, used_T)
        encode = packed_clip_text if packs else self._text_form.encode
        return unit_rows(encode(self.towers, token_TL, used_T))

    def computed_tokens(
        self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens that ``encode_texts`` computes for each caption, with padding: int64 [T], on the
        device of ``used_T``, or else of the captions."""
        if used_T is None:
            return self.computed_tokens(token_TL, self._used(token_TL)).to(token_TL.device)
        if self._packs(token_TL, used_T):
            return used_T
        return torch.full_like(used_T, token_TL.shape[1])

    def _packs(self, token_TL: torch.Tensor, used_T: torch.Tensor) -> bool:
        can = self._text_form.packs
        return can and packs_now(self.towers, token_TL, used_T, self.is_compiled)

    def _used(self, token_TL: torch.Tensor) -> torch.Tensor:
        return self.tokenize.used_tokens(token_TL).cpu()

    def logit_scale(self) -> torch.Tensor:
        """1 / tau, at most the bound; one element, float32 or wider.

        CLIP clamps the parameter after each step, which ZeRO and 16-bit engines undo with the
        optimizer's fp32 copy. A clamp in the forward would stop the gradient, and OpenAI's weights
        are slightly beyond the bound. So the gradient passes, and ``bound_pull`` is added.
        """
        if self.fixed_scale is not None:
            return torch.full_like(self.towers.logit_scale, self.fixed_scale, dtype=torch.float32)
        log_scale, excess = self._log_scale()
        return (log_scale - excess).exp()

    def start_note(self) -> str | None:
        """A message on a bound that is not CLIP's; None if it is."""
        if self.log_scale_bound == math.log(LARGEST_LOGIT_SCALE):
            return None
        return (
            f"the logit scale of these weights, {math.exp(self.log_scale_bound):.1f}, is beyond "
            f"CLIP's bound of {LARGEST_LOGIT_SCALE:.0f}; it is kept, as the bound of this training"
        )

    def logit_bias(self) -> torch.Tensor:
        """What the sigmoid loss adds to the logits; one element, float32 or wider; 0 if none."""
        if self._bias is None:
            return torch.zeros_like(self.towers.logit_scale, dtype=torch.float32)
        return wide(self._bias).view(1)

    def bound_pull(self) -> torch.Tensor:
        """Zero, one element: a term of the loss whose gradient is the excess over the bound.

        A term of the loss, so that loss scaling (fp16) and averaging over ranks apply to it.
        """
        log_scale, excess = self._log_scale()
        return (log_scale - log_scale.detach()) * excess

    def _log_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The parameter, and its excess over the bound as a constant."""
        log_scale = wide(self.towers.logit_scale)
        excess = log_scale.detach() - self.log_scale_bound
        return log_scale, excess.clamp(min=0)

    def state_by_open_clip_name(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under open_clip's names; shared storage, not copies."""
        return dict(self.towers.state_dict())

    def text_files(self) -> dict[str, bytes]:
        """Tokenizer and configuration files of a Hugging Face text tower, by name; cached."""
        if self._text_files is None:
            self._text_files = self.tokenize.files(self.towers)
        return self._text_files

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: no weight decay for gains, biases and temperature.

        Source: the same split as open_clip's training script.
        """
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim < 2 or "ln" in name or "bias" in name]
        chosen = {id(p) for p in plain}
        decayed = [p for _, p in named if id(p) not in chosen]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def forward_cost(clip: Clip) -> tuple[float, float]:
    """Matrix operations of a forward pass for one image and for one text token."""
    size = clip.image_settings.size
    device = clip.towers.logit_scale.device
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    token_TL = clip.tokenize(["a photo of a cat on a sofa in a room"]).to(device)
    with _measuring(clip):
        with FlopCounterMode(display=False) as images:
            clip.encode_images(image)
        with FlopCounterMode(display=False) as texts:
            clip.encode_texts(token_TL)
    return float(images.get_total_flops()), texts.get_total_flops() / token_TL.numel()


@contextmanager
def _measuring(clip: Clip) -> Iterator[None]:
    """Evaluation mode, in which batch norms keep their statistics, and no parameter that requires a
    gradient, as the counter fails on a view of one (SigLIP's pooling)."""
    training, trained = clip.training, [p for p in clip.parameters() if p.requires_grad]
    clip.eval()
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.no_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        clip.train(training)


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, none of which trains."""
    found = [parameter.requires_grad for parameter in module.parameters()]
    return bool(found) and not any(found)


def _image_settings(preprocess: dict[str, Any]) -> ImageSettings:
    size = preprocess["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise UserError(
            f"the model takes images of {size} pixels, but only square ones are supported; choose "
            "a model whose image_size is one number"
        )
    for setting, known in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
        if preprocess[setting] not in known:
            raise UserError(
                f"the model's {setting} '{preprocess[setting]}' is not supported; supported are "
                f"{' and '.join(known)}"
            )
    colours = [tuple(preprocess[name]) for name in ("mean", "std")]
    numbers = [value for colour in colours for value in colour]
    are_numbers = all(type(value) in (float, int) for value in numbers)  # true would be 1
    if not are_numbers or [len(colour) for colour in colours] != [3, 3] or min(colours[1]) <= 0:
        raise UserError(f"the model's mean {colours[0]} and std {colours[1]} are no colours")
    if max(map(abs, numbers)) > 255:
        raise UserError(f"the model's mean {colours[0]} and std {colours[1]} are no colours")
    return ImageSettings(
        size=sides.pop(),
        mean=colours[0],
        std=colours[1],
        interpolation=preprocess["interpolation"],
        resize_mode=preprocess["resize_mode"],
    )


State = Mapping[str, torch.Tensor]
"""Parameters and buffers by open_clip's names, on the CPU."""


def own_state(model: Clip) -> dict[str, torch.Tensor]:
    """A copy of a model's state on the CPU."""
    state = model.state_by_open_clip_name()
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


@torch.no_grad()
def set_weights(model: Clip, state: State) -> None:
    """Copy a state into a model."""
    for name, tensor in model.state_by_open_clip_name().items():
        tensor.copy_(state[name])


def state_sha256(state: State, config: dict[str, Any]) -> str:
    """sha256 over a model's configuration and the names, shapes and bytes of its state.

    Floating-point tensors are hashed as float32, so that 16-bit copies have the same hash.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        plain = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"\n{name} {tuple(plain.shape)}\n".encode())
        digest.update(plain.contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()
