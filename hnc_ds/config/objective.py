"""Settings of the objective, of the model and of what of it trains."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from hnc_ds.config.checks import Settings, Weights, at_least
from hnc_ds.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Which CLIP is trained (hnc_ds/model)."""

    model: str = "tiny"
    """An open_clip model name or hf-hub:/local-dir: reference; 'tiny' takes 32 pixels and is for
    trying out, 'tiny-rn' is a residual network and takes 64."""

    pretrained: str | None = None
    """An open_clip tag or a local file of weights; none starts from random weights. FILE:TAG is a
    file that has the activation and preprocessing of the weights published as TAG."""

    force_quick_gelu: bool | None = None
    """Whether the activation is QuickGELU, where a file of weights does not say."""

    image_mean: tuple[float, float, float] | None = None
    """Of the model's pictures, where a file of weights does not say; so are the next three."""

    image_std: tuple[float, float, float] | None = None
    """Standard deviation."""

    image_interpolation: Literal["bicubic", "bilinear"] | None = None
    """How pictures are resized."""

    image_resize_mode: Literal["shortest", "squash"] | None = None
    """Resized by the shortest side and cropped, or squashed to a square."""

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):  # lists in JSON
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))


LOSS_TERMS = {
    "contrastive": "InfoNCE in which images also compete with hard negatives, alpha times each",
    "margin": "hinge on the lead of the positive over each hard negative (gamma)",
    "preference": "the lead over a hard negative should exceed the start model's (beta)",
    "distill": "KL divergence from the start model's softmaxes (distill_tau, distill_negatives)",
    "l2_to_start": "squared distance of the trained weights from the start weights",
}
"""What a loss can be summed of."""

OF_START = frozenset(("preference", "distill", "l2_to_start"))
"""Terms that compare with the start model."""

PRESETS: dict[str, dict[str, Any]] = {
    "clip": {"terms": {"contrastive": 1.0}, "alpha": 0.0},
    "hnc": {"terms": {"contrastive": 1.0}, "alpha": 1.0},
    "negclip": {"terms": {"contrastive": 0.5}, "alpha": 1.0, "negatives_from": "all_images"},
    "structure-clip": {"terms": {"contrastive": 0.5, "margin": 1.0}, "alpha": 0.0, "gamma": 0.2},
    "dpo": {"terms": {"contrastive": 1.0, "preference": 1.0}, "alpha": 0.0, "beta": 0.1},
}
"""Objectives by the names under which people compare them.

clip is CLIP's with this project's weight; NegCLIP and Structure-CLIP take the mean of the two
directions of InfoNCE, hence 0.5. What they draw (NegCLIP: one negative and similar images) is said
by DataConfig. Preference alone would forget to tell pictures apart, so dpo keeps CLIP's objective.
"""

OF_NEGATIVES = frozenset(("margin", "preference"))
"""Terms that are nothing without hard negatives."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """What is minimised (hnc_ds/objective)."""

    terms: Weights = field(default_factory=dict)
    """Terms and their weights: contrastive 1 distill 0.5. Of contrastive, margin, preference,
    distill, l2_to_start; when none is named: contrastive 1."""

    alpha: float = 1.0
    """Copies of each hard negative in the softmax; 0 is plain CLIP."""

    alpha_end: float | None = None
    """alpha after --alpha-steps; alpha stays when not given."""

    alpha_steps: int = 1
    """Steps from alpha to alpha_end."""

    alpha_schedule: Literal["linear", "step"] = "linear"
    """On a line from alpha to alpha_end, or alpha before and alpha_end after."""

    negatives_from: Literal["own_image", "all_images"] = "own_image"
    """Which hard negatives an image competes with: its own, or those of all images of the batch, as
    in NegCLIP."""

    tau: float | None = None
    """Fixed temperature; learned from the model's own start value when not given."""

    gamma: float = 0.2
    """margin: the least lead in cosine that costs nothing."""

    beta: float = 0.1
    """preference: how sharply a lead is preferred."""

    distill_tau: float | None = None
    """distill: temperature of both softmaxes; the start model's own when not given."""

    distill_negatives: bool = True
    """distill: over all columns of the contrastive softmax; without, hard negatives are left out,
    so that the start model's opinion of them is not taught."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, alpha=self.alpha, alpha_end=self.alpha_end or 0.0, gamma=self.gamma)
        at_least(1, alpha_steps=self.alpha_steps)
        for name, tau in (("tau", self.tau), ("distill_tau", self.distill_tau)):
            if tau is not None and not 0.01 <= tau <= 10:
                raise UserError(f"{name} is {tau}; it must lie between 0.01 and 10")
        if self.beta <= 0:
            raise UserError(f"beta is {self.beta}; it must be more than 0")
        for name, weight in self.terms.items():
            if name not in LOSS_TERMS:
                known = ", ".join(LOSS_TERMS)
                raise UserError(
                    f"terms: no term '{name}'{did_you_mean(name, LOSS_TERMS)}; there are {known}"
                )
            if not 0 <= weight < math.inf:
                raise UserError(f"terms: the weight of {name} is {weight}; it must be 0 or more")
        if not set(self.weights()) - {"l2_to_start"}:
            raise UserError("terms: nothing is learned from images; give contrastive a weight")

    def weights(self) -> dict[str, float]:
        """The terms that count, and their weights."""
        chosen = self.terms or {"contrastive": 1.0}
        return {name: weight for name, weight in chosen.items() if weight > 0}

    def alpha_at(self, step: int) -> float:
        """The weight of a hard negative at a step, counted from 0."""
        if self.alpha_end is None or step <= 0:
            return self.alpha
        if step >= self.alpha_steps:
            return self.alpha_end
        if self.alpha_schedule == "step":
            return self.alpha
        return self.alpha + (self.alpha_end - self.alpha) * step / self.alpha_steps

    def sees_negatives(self) -> bool:
        """Whether any hard negative can count at any step."""
        largest = max(self.alpha, self.alpha_end or 0.0)
        weights = self.weights()
        in_softmax = "contrastive" in weights or ("distill" in weights and self.distill_negatives)
        return bool(OF_NEGATIVES & set(weights)) or (in_softmax and largest > 0)


@dataclass(frozen=True, kw_only=True)
class ScopeConfig(Settings):
    """What of the model trains (hnc_ds/model/scope.py)."""

    towers: Literal["both", "image", "text"] = "both"
    """Which tower trains; the other one stays as it is."""

    last_blocks: int | None = None
    """Only the last transformer blocks of the chosen towers, with the norm and the projection after
    them; 0 for these two alone."""

    lora_rank: int | None = None
    """LoRA: low-rank changes beside the frozen matrices of the chosen towers' blocks."""

    lora_alpha: float | None = None
    """LoRA: the changes are multiplied by lora_alpha / lora_rank; lora_rank when not given."""

    train_temperature: bool = True
    """Learn the temperature; --tau fixes it at a value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, last_blocks=self.last_blocks or 0)
        if self.lora_rank is not None:
            at_least(1, lora_rank=self.lora_rank)
            if self.lora_alpha == 0:
                raise UserError("lora_alpha is 0.0; it must be more than 0, or nothing trains")
        elif self.lora_alpha is not None:
            raise UserError("lora_alpha is nothing without lora_rank; give both or neither")
        if self.last_blocks is not None and self.lora_rank is not None:
            raise UserError("give last_blocks or lora_rank, not both")

    def lora_scale(self) -> float:
        """What the low-rank changes are multiplied by."""
        rank = self.lora_rank or 1
        return (rank if self.lora_alpha is None else self.lora_alpha) / rank
