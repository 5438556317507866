"""An open_clip model as it is trained: two towers and a bounded temperature behind one forward.

T distinct captions of L tokens, B images of R pixels, width D.
"""

import math
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnc_ds.errors import UserError
from hnc_ds.model.text import Tokenizer, context_length, exact_text_encoder, unit_rows
from hnc_ds.shards.images import INTERPOLATIONS, RESIZE_MODES, ImageSettings

LARGEST_LOGIT_SCALE = 100.0
"""CLIP's bound on 1 / tau (Radford et al. 2021, section 2.5)."""


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
        context = context_length(config["model_cfg"]["text_cfg"])
        self._encode_text, trim = exact_text_encoder(towers, tokenize, context)
        self.tokenize = Tokenizer(tokenize, context, trim)
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
        return unit_rows(self.towers.encode_image(pixels.to(dtype)))

    def encode_texts(self, token_TL: torch.Tensor) -> torch.Tensor:
        """Embed captions as ``tokenize`` gives them.

        Returns:
            [T, D], rows of unit length, float32 or wider.
        """
        return unit_rows(self._encode_text(self.towers, token_TL))

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
    return ImageSettings(
        size=sides.pop(),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        interpolation=preprocess["interpolation"],
        resize_mode=preprocess["resize_mode"],
    )
