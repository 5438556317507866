"""Settings of the model, the objective and which parameters train."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import tyro

from hnc_ds.config.checks import Settings, Weights, at_least, share
from hnc_ds.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Which CLIP model is trained (hnc_ds/model)."""

    GROUP: ClassVar[str] = "model"

    model: str = "tiny"
    """Name of an open_clip model, or an hf-hub: or local-dir: reference. 'tiny' (a ViT of 32
    pixels) and 'tiny-rn' (a ResNet of 64 pixels) are models for trying out. hf:FOLDER or hf:ID is
    an image-text matching model of transformers, such as BLIP."""
    pretrained: str | None = None
    """An open_clip tag, or a local file of weights; random weights when not given. FILE:TAG is a
    file with the activation and preprocessing of the weights published as TAG."""
    force_quick_gelu: bool | None = None
    """Whether the activation is QuickGELU, where a file of weights leaves it open."""
    image_mean: tuple[float, float, float] | None = None
    """Mean of the model's input images for each channel, where a file of weights leaves it open."""
    image_std: tuple[float, float, float] | None = None
    """Standard deviation of the model's input images for each channel, likewise."""
    image_interpolation: Literal["bicubic", "bilinear"] | None = None
    """Interpolation by which images are resized, likewise."""
    image_resize_mode: Literal["shortest", "squash"] | None = None
    """Resize the shortest side and crop the center, or squash to a square; likewise."""

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):  # lists in JSON
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))


class LossTerm(NamedTuple):
    """A summand of the loss. Its function has the same name and is in objective/terms.py, but for a
    term ``on_weights``, whose gradient engine.py adds."""

    summary: str
    tags: Mapping[str, str]
    """What the log has of it, and what that is: loss/TAG."""
    needs_reference: bool = False
    """Compares with the reference model: the model as it was before training."""
    needs_negatives: bool = False
    """Without hard negatives there is nothing to compute."""
    weighs_negatives: bool = False
    """A softmax that contains hard negatives with weight alpha."""
    on_weights: bool = False
    """A function of the weights, not of embeddings."""
    trains_bias: bool = False
    """Adds the model's logit_bias to the logits, and trains it."""
    needs_mean_gap: bool = False
    """Compares with the mean over all ranks."""
    of_captions: bool = False
    """Without a gradient for images."""
    of_matches: bool = False
    """On log-odds of image-text matching models; its function is in objective/matching.py."""


LOSS_TERMS = {
    "contrastive": LossTerm(
        "InfoNCE in which images also compete with hard negatives, each with weight alpha",
        {"image_to_text": "contrastive, nats", "text_to_image": "contrastive, nats"},
        weighs_negatives=True,
    ),
    "sigmoid": LossTerm(
        "SigLIP's: every image with every caption is a question of its own; hard negatives are "
        "wrong captions with weight alpha (bias)",
        {"sigmoid": "SigLIP's, nats"},
        weighs_negatives=True,
        trains_bias=True,
    ),
    "margin": LossTerm(
        "hinge on cosine similarity of the positive minus that of each hard negative (gamma)",
        {"margin": "hinge, cosine"},
        needs_negatives=True,
    ),
    "adaptive_margin": LossTerm(
        "CE-CLIP's: hinge on that difference over tau, which should exceed its mean over the "
        "batch, at most margin_bound",
        {"adaptive_margin": "hinge from the mean difference, in units of tau"},
        needs_negatives=True,
        needs_mean_gap=True,
    ),
    "hard_negative": LossTerm(
        "softmax of the positive among the image's own hard negatives alone, as of FSC-CLIP, CLIC "
        "and DeGLA (focal_gamma, label_smoothing)",
        {"hard_negative": "of the positive among its own hard negatives, nats"},
        needs_negatives=True,
    ),
    "intra_modal": LossTerm(
        "CE-CLIP's: pushes the positive's hard negatives away from it, text from text (text_tau)",
        {"intra_modal": "of the positive among its hard negatives, by captions alone, nats"},
        needs_negatives=True,
        of_captions=True,
    ),
    "text_grounded": LossTerm(
        "DeGLA's: the same, and pulls the positive to the reference model's embedding of it "
        "(text_tau)",
        {"text_grounded": "of the reference model's positive among hard negatives, nats"},
        needs_reference=True,
        needs_negatives=True,
        of_captions=True,
    ),
    "blind": LossTerm(
        "squared preference for the positive over each hard negative on other images, so that the "
        "captions alone do not tell which is true",
        {"blind": "squared preference on other images, in units of tau"},
        needs_negatives=True,
    ),
    "blind_mean": LossTerm(
        "the same for the mean preference of other images, which may differ from each other",
        {"blind_mean": "squared mean preference of other images, in units of tau"},
        needs_negatives=True,
    ),
    "sighted": LossTerm(
        "softmax of the positive among the image's own hard negatives, by what the image adds to "
        "the mean of other images",
        {"sighted": "of the positive, by the image less the mean of others, nats"},
        needs_negatives=True,
    ),
    "preference": LossTerm(
        "DPO: that difference should exceed the reference model's (beta)",
        {"preference": "DPO, nats"},
        needs_reference=True,
        needs_negatives=True,
    ),
    "distill": LossTerm(
        "KL divergence from the reference model's softmaxes (distill_tau, distill_negatives)",
        {"distill": "KL divergence from the reference model, nats"},
        needs_reference=True,
        weighs_negatives=True,
    ),
    "feature_distill": LossTerm(
        "squared distance of embeddings from the reference model's, each hard negative's with "
        "weight alpha (distill_negatives)",
        {"feature_distill": "squared distance of embeddings from the reference model's"},
        needs_reference=True,
        weighs_negatives=True,
    ),
    "itm": LossTerm(
        "match or no match, of image-text matching models (--model hf:...): hard negatives have "
        "weight alpha beside unrelated captions, and both classes the same weight",
        {"itm": "cross-entropy of match and no match, nats"},
        weighs_negatives=True,
        of_matches=True,
    ),
    "match_margin": LossTerm(
        "of these models, hinge on the log-odds of the positive minus those of each hard negative "
        "(match_gamma)",
        {"match_margin": "hinge, log-odds"},
        needs_negatives=True,
        of_matches=True,
    ),
    "l2_sp": LossTerm(
        "squared distance of the trained weights from the reference weights",
        {"l2_sp": "squared distance of the trained weights from the reference weights"},
        needs_reference=True,
        on_weights=True,
    ),
}
"""THE TABLE of terms."""

PRESETS: dict[str, dict[str, Any]] = {
    "clip": {"terms": {"contrastive": 1.0}, "alpha": 0.0},
    "hnc": {"terms": {"contrastive": 1.0}, "alpha": 1.0},
    "hnc-sighted": {"terms": {"contrastive": 1.0, "sighted": 1.5, "blind_mean": 3.0}, "alpha": 0.0},
    "hnc-itm": {"terms": {"itm": 1.0}, "alpha": 1.0},
    "negclip": {"terms": {"contrastive": 0.5}, "alpha": 1.0, "negatives_from": "all_images"},
    "structure-clip": {"terms": {"contrastive": 0.5, "margin": 1.0}, "alpha": 0.0, "gamma": 0.2},
    "siglip": {"terms": {"sigmoid": 1.0}, "alpha": 0.0},
    "hnc-siglip": {"terms": {"sigmoid": 1.0}, "alpha": 1.0},
    "dpo": {"terms": {"contrastive": 1.0, "preference": 1.0}, "alpha": 0.0, "beta": 0.1},
    "ce-clip": {
        "terms": {"contrastive": 0.5, "adaptive_margin": 0.2, "intra_modal": 0.3},
        "alpha": 1.0,
        "negatives_from": "all_images",
        "margin_bound": 10.0,
    },
    "fsc-clip": {
        "terms": {"contrastive": 0.5, "hard_negative": 0.5},
        "alpha": 0.0,
        "focal_gamma": 2.0,
        "label_smoothing": 0.02,
    },
    "clic": {"terms": {"contrastive": 0.25, "hard_negative": 0.5}, "alpha": 0.0},
    "degla": {
        "terms": {
            "contrastive": 0.5,
            "hard_negative": 0.1,
            "text_grounded": 0.1,
            "feature_distill": 1.28,
        },
        "alpha": 1.0,
        "negatives_from": "all_images",
        "text_tau": 0.1,
        "reference": "average",
    },
}
"""Published objectives by name.

Most take the mean of the two directions of InfoNCE, hence 0.5. Which negatives are drawn (NegCLIP:
one, and similar images) is set in DataConfig, as are CLIC's positives. Preference alone forgets to
separate images, so dpo keeps CLIP's objective. DeGLA sums feature_distill over the batch with
weight 0.005: 1.28 times the mean over its 256 images. docs/presets.md has what is missing.
"""

PRESET_EMA = {"degla": 0.9996}
"""Decay of --ema by preset, where the moving average is the reference model."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """What is minimized (hnc_ds/objective)."""

    GROUP: ClassVar[str] = "objective"
    MAY_BE_NEGATIVE: ClassVar[frozenset[str]] = frozenset({"bias"})

    terms: Annotated[
        Weights,
        tyro.conf.arg(
            help="Terms of the loss and their weights: contrastive 1 distill 0.5. Contrastive 1 "
            "when not given. Terms: "
            + "; ".join(f"{name}, {term.summary}" for name, term in LOSS_TERMS.items())
        ),
    ] = field(default_factory=dict)

    alpha: float = 1.0
    """Weight of each hard negative in the softmax, or the sigmoid loss; 0 leaves them out."""
    alpha_end: float | None = None
    """Weight of each hard negative after --alpha-steps; alpha is constant when not given."""
    alpha_steps: int = 1
    """Steps from --alpha to --alpha-end."""
    alpha_schedule: Literal["linear", "step"] = "linear"
    """Change alpha linearly, or at once after --alpha-steps."""
    negatives_from: Literal["own_image", "all_images"] = "own_image"
    """Which hard negatives an image competes with: its own, or those of all images of the batch, as
    in NegCLIP."""
    tau: float | None = None
    """Fixed temperature; learned from the model's own initial value when not given."""
    bias: float | None = None
    """sigmoid: initial value of the bias that is added to the logits and trained; the model's own
    when not given, or SigLIP's -10 where the model has none."""
    gamma: float = 0.2
    """margin: difference in cosine similarity from which on the loss is 0."""
    match_gamma: float = 1.0
    """match_margin: difference in log-odds from which on the loss is 0."""
    margin_bound: float = 10.0
    """adaptive_margin: upper bound of the difference it asks for, in units of tau."""
    focal_gamma: float = 0.0
    """hard_negative: exponent of (1 - probability), which weights down what is solved; 0 does not,
    otherwise 1 or more."""
    label_smoothing: float = 0.0
    """hard_negative: share of the label that is uniform over the positive and its negatives."""
    text_tau: float | None = None
    """intra_modal, text_grounded: temperature; the model's own when not given."""
    reference: Literal["start", "average"] = "start"
    """The reference model: the model before training, or the moving average of --ema."""
    beta: float = 0.1
    """preference: DPO's beta, which scales the difference to the reference model."""
    distill_tau: float | None = None
    """distill: temperature of both softmaxes; the reference model's own when not given."""
    distill_negatives: bool = True
    """distill, feature_distill: include hard negatives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, alpha=self.alpha, alpha_end=self.alpha_end or 0.0, gamma=self.gamma)
        at_least(1, alpha_steps=self.alpha_steps)
        at_least(0, margin_bound=self.margin_bound, focal_gamma=self.focal_gamma)
        at_least(0, match_gamma=self.match_gamma)
        if 0 < self.focal_gamma < 1:  # its gradient is infinite where the probability is 1
            raise UserError(f"focal_gamma is {self.focal_gamma}; it must be 0, or 1 or more")
        share(label_smoothing=self.label_smoothing)
        for name in ("tau", "distill_tau", "text_tau"):
            tau = getattr(self, name)
            if tau is not None and not 0.01 <= tau <= 10:
                raise UserError(f"{name} is {tau}; it must lie between 0.01 and 10")
        if self.beta <= 0:
            raise UserError(f"beta is {self.beta}; it must be more than 0")
        for name, weight in self.terms.items():
            if name not in LOSS_TERMS:
                raise UserError(
                    f"terms: no term '{name}'{did_you_mean(name, LOSS_TERMS)}; "
                    f"known are {', '.join(LOSS_TERMS)}"
                )
            if not 0 <= weight < math.inf:
                raise UserError(f"terms: the weight of {name} is {weight}; it must be 0 or more")
        if all(LOSS_TERMS[name].on_weights for name in self.weights()):
            raise UserError("terms: nothing is learned from images; give contrastive a weight")
        if self.reference == "average" and "l2_sp" in self.weights():
            raise UserError(
                "l2_sp pulls the weights to the start of training; use --reference start, or "
                "feature_distill in its place"
            )

    def weights(self) -> dict[str, float]:
        """The terms with a weight above 0, and their weights."""
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
        without = set() if self.distill_negatives else {"distill", "feature_distill"}
        names = set(self.weights()) - without
        in_softmax = any(LOSS_TERMS[name].weighs_negatives for name in names)
        largest = max(self.alpha, self.alpha_end or 0.0)
        return bool(self.terms_of_negatives()) or (in_softmax and largest > 0)

    def terms_of_negatives(self) -> list[str]:
        """The terms that need hard negatives."""
        return [name for name in self.weights() if LOSS_TERMS[name].needs_negatives]

    def is_match(self, name: str) -> bool:
        """Whether a term is of image-text matching models."""
        return LOSS_TERMS[name].of_matches

    def is_of_captions(self) -> bool:
        """Whether no term on embeddings has a gradient for images."""
        terms = [LOSS_TERMS[name] for name in self.weights()]
        return all(term.of_captions or term.on_weights for term in terms)

    def trains_bias(self) -> bool:
        """Whether a term adds the model's logit_bias to the logits, and trains it."""
        return any(LOSS_TERMS[name].trains_bias for name in self.weights())

    def needs_mean_gap(self) -> bool:
        """Whether a term needs the mean difference over all ranks."""
        return any(LOSS_TERMS[name].needs_mean_gap for name in self.weights())

    def follows_average(self) -> bool:
        """Whether the reference model of a term is the moving average."""
        return self.reference == "average" and self.needs_reference(on_weights=False)

    def needs_reference(self, on_weights: bool) -> bool:
        """Whether a term needs the reference model: its weights, or else its embeddings."""
        terms = [LOSS_TERMS[name] for name in self.weights()]
        return any(term.needs_reference and term.on_weights == on_weights for term in terms)


@dataclass(frozen=True, kw_only=True)
class ScopeConfig(Settings):
    """Which parameters train (hnc_ds/model/scope.py)."""

    GROUP: ClassVar[str] = "model"

    towers: Literal["both", "image", "text"] = "both"
    """Which tower trains; the other one is frozen."""
    last_blocks: int | None = None
    """Train only this many last transformer blocks of the chosen towers, with the norm and the
    projection after them; 0 trains these two alone."""
    lora_rank: int | None = None
    """Train LoRA adapters of this rank on the chosen towers' blocks, and nothing else of them."""
    lora_alpha: float | None = None
    """LoRA's alpha: adapters are multiplied by lora_alpha / lora_rank; 1 times when not given."""
    train_temperature: bool = True
    """Learn the temperature, or keep that of the weights; --tau fixes it at a value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, last_blocks=self.last_blocks or 0)
        if self.lora_rank is not None:
            at_least(1, lora_rank=self.lora_rank)
            if self.lora_alpha == 0:
                raise UserError("lora_alpha is 0.0; it must be more than 0, or nothing trains")
        elif self.lora_alpha is not None:
            raise UserError("lora_alpha needs lora_rank; give both or neither")
        if self.last_blocks is not None and self.lora_rank is not None:
            raise UserError("give last_blocks or lora_rank, not both")

    def lora_scale(self) -> float:
        """What LoRA adapters are multiplied by."""
        rank = self.lora_rank or 1
        return (rank if self.lora_alpha is None else self.lora_alpha) / rank
