"""An open_clip model as it is trained: two towers and a bounded temperature behind one forward.

T distinct captions of L tokens, B images of R pixels, width D.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnc_ds.errors import UserError
from hnc_ds.model.attention import use_tower_attention
from hnc_ds.model.packed import packed_clip_text
from hnc_ds.model.text import (
    Tokenizer,
    context_length,
    exact_text_form,
    packs_now,
    unit_rows,
    wide,
)
from hnc_ds.shards.images import INTERPOLATIONS, RESIZE_MODES, ImageSettings

LARGEST_LOGIT_SCALE = 100.0
"""CLIP's bound on 1 / tau (Radford et al. 2021, section 2.5)."""


TOWERS = ("image", "text")
BESIDE_TOWERS = ("logit_scale", "logit_bias", "text_decoder")
"""What an open_clip model may hold that belongs to neither tower."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Part = nn.Module | nn.Parameter


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
        self._statistics: dict[torch.device, torch.Tensor] = {}
        context = context_length(config["model_cfg"]["text_cfg"])
        use_tower_attention(towers)
        self._text_form = exact_text_form(towers, tokenize, context)
        self.tokenize = Tokenizer(tokenize, context, self._text_form.trims)
        self._text_files: dict[str, bytes] | None = None
        self.fixed_scale: float | None = None
        self.low_rank_scale: float | None = None
        """Of the changes that LoRA makes, where it is used."""
        self.start: Clip | None = None
        self.is_compiled = False
        """Whether ``compile_blocks`` was here."""
        self._freeze_beside_towers()

    def fix_temperature(self, tau: float) -> None:
        """Stop learning the temperature and use ``tau``."""
        self.fixed_scale = 1 / tau
        with torch.no_grad():
            self.towers.logit_scale.fill_(-math.log(tau))
        self.towers.logit_scale.requires_grad_(False)

    def tower(self, name: str) -> dict[str, Part]:
        """The modules and parameters that an image or a text goes through, by their names."""
        visual, text = self.towers.visual, getattr(self.towers, "text", self.towers)
        holder, not_part = (visual, ()) if name == "image" else (text, ("visual", *BESIDE_TOWERS))
        parts = (*holder.named_children(), *holder.named_parameters(recurse=False))
        return {name: part for name, part in parts if name not in not_part}

    def freeze(self, name: str) -> None:
        """Train nothing of the tower 'image' or 'text'."""
        for part in self.tower(name).values():
            part.requires_grad_(False)

    def is_frozen(self, name: str) -> bool:
        """Whether nothing of a tower trains."""
        return not any(parameter.requires_grad for parameter in self._tower_parameters(name))

    def learns_temperature(self) -> bool:
        """Whether the temperature trains."""
        return bool(self.towers.logit_scale.requires_grad)

    def _tower_parameters(self, name: str) -> Iterator[nn.Parameter]:
        for part in self.tower(name).values():
            yield from part.parameters() if isinstance(part, nn.Module) else (part,)

    def _freeze_beside_towers(self) -> None:
        """What neither tower uses has no gradient: a bias that a softmax does not see, decoders."""
        used = {id(p) for name in TOWERS for p in self._tower_parameters(name)}
        for parameter in self.towers.parameters():
            if id(parameter) not in used and parameter is not self.towers.logit_scale:
                parameter.requires_grad_(False)

    def has_batch_statistics(self) -> bool:
        """Whether a layer mixes the rows of a batch, which is then not the sum of its parts."""
        return any(isinstance(module, BATCH_NORMS) and module.training for module in self.modules())

    def train(self, mode: bool = True) -> "Clip":
        """Training mode, but for frozen towers: their statistics and dropout stay out of it."""
        super().train(mode)
        for name in TOWERS:
            if mode and self.is_frozen(name):
                for part in self.tower(name).values():
                    if isinstance(part, nn.Module):
                        part.eval()
        if self.start is not None:
            self.start.eval()
        return self

    def remember_start(self) -> None:
        """Keep the model as it is now, frozen, to compare with. What does not train is shared."""
        shared: list[Any] = [p for p in self.parameters() if not p.requires_grad]
        memo = {id(part): part for part in (*shared, self.tokenize)}
        self.start = deepcopy(self, memo).requires_grad_(False).eval()

    def forward(
        self,
        images_B3RR: torch.Tensor,
        token_TL: torch.Tensor,
        used_T: torch.Tensor | None = None,
        with_start: bool = True,
    ) -> tuple[torch.Tensor, ...]:
        """Unit embeddings [B, D] and [T, D], 1 / tau and ``bound_pull`` with one element each.

        With a start model, and unless it is not wanted, the first three of it, as constants.

        Args:
            images_B3RR: uint8.
            token_TL: Of ``tokenize``.
            used_T: As ``encode_texts`` takes it.
            with_start: Whether the start model's are wanted.
        """
        image_BD, text_TD = self.encode_images(images_B3RR), self.encode_texts(token_TL, used_T)
        own = image_BD, text_TD, self.logit_scale(), self.bound_pull()
        if self.start is None or not with_start:
            return own
        with torch.no_grad():  # a frozen tower says the same in both
            start_BD = own[0] if self.is_frozen("image") else self.start.encode_images(images_B3RR)
            frozen = self.is_frozen("text")
            start_TD = own[1] if frozen else self.start.encode_texts(token_TL, used_T)
            return (*own, start_BD.detach(), start_TD.detach(), self.start.logit_scale())

    def encode_images(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Embed uint8 pictures of the model's size.

        Returns:
            [B, D], rows of unit length, float32 or wider.
        """
        dtype = next(self.towers.visual.parameters()).dtype
        return unit_rows(self.towers.encode_image(self.normalised(images_B3RR).to(dtype)))

    def normalised(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """float32 pixels as the model takes them: in one copy, which no backward pass keeps."""
        mean_311, std_311 = self._mean_and_std(images_B3RR.device)
        pixels_B3RR = images_B3RR.to(torch.float32, copy=True)
        return pixels_B3RR.div_(255).sub_(mean_311).div_(std_311)

    def _mean_and_std(self, device: torch.device) -> torch.Tensor:
        """Of each channel, [2, 3, 1, 1]; copied to a device once, as it waits for the copy."""
        if device not in self._statistics:
            values = self.image_settings.mean, self.image_settings.std
            with torch.inference_mode(False):  # it may train later
                made = torch.tensor(values, dtype=torch.float32, device=device)
            self._statistics[device] = made.view(2, 3, 1, 1)
        return self._statistics[device]

    def encode_texts(
        self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed captions as ``tokenize`` gives them.

        Args:
            token_TL: Captions.
            used_T: int64, on the host: tokens of each, as ``tokenize.used_tokens`` counts them.
                Without it they are counted here, and a device is waited for.

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
        """Tokens that ``encode_texts`` computes for each caption, padding included: int64 [T],
        where ``used_T`` is, or without it where the captions are."""
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
        """1 / tau, at most LARGEST_LOGIT_SCALE; one element, float32 or wider.

        CLIP clamps the parameter after each step; under ZeRO and 16-bit engines that is undone by
        the optimizer's own copy. A plain clamp in the forward would stop the gradient, and OpenAI's
        weights start a hair beyond the bound. So the gradient passes (``bound_pull``).
        """
        if self.fixed_scale is not None:
            return torch.full_like(self.towers.logit_scale, self.fixed_scale, dtype=torch.float32)
        log_scale, excess = self._log_scale()
        return (log_scale - excess).exp()

    def bound_pull(self) -> torch.Tensor:
        """Zero, one element: a term of the loss whose gradient is what exceeds the bound.

        A term and not a change of the gradient, so that it is scaled as the loss is (fp16), is
        averaged over ranks as it is, and counts as often as it is added: once a step.
        """
        log_scale, excess = self._log_scale()
        return (log_scale - log_scale.detach()) * excess

    def _log_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The parameter, and what of it is beyond the bound, as a constant."""
        log_scale = wide(self.towers.logit_scale)
        excess = log_scale.detach() - math.log(LARGEST_LOGIT_SCALE)
        return log_scale, excess.clamp(min=0)

    def state_by_open_clip_name(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under open_clip's names; shared storage, not copies."""
        return dict(self.towers.state_dict())

    def text_files(self) -> dict[str, bytes]:
        """Files that lie beside the weights of a Hugging Face text side, by name; made once."""
        if self._text_files is None:
            self._text_files = self.tokenize.files(self.towers)
        return self._text_files

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What trains, for an optimizer: gains, biases and the temperature are not decayed.

        Source: the same split as open_clip's training script.
        """
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim < 2 or "ln" in name or "bias" in name]
        chosen = {id(p) for p in plain}
        decayed = [p for _, p in named if id(p) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": plain, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


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
