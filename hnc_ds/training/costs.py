"""What a run would cost: parameters, memory of a GPU by part, steps and hours. Writes nothing.

    hnc-ds train --model ViT-L-14 --deepspeed_config zero1_bf16 --dry_run --dry_run_gpus 8 \\
        --dry_run_images 75000 --epochs 5

Weights, gradients and optimizer state follow from DeepSpeed's JSON, and are what it allocates but
for alignment. Activations and speed are estimates; docs/costs.md has the formulas.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from hnc_ds.config import TrainConfig
from hnc_ds.distributed import world_size
from hnc_ds.engine.deepspeed_config import batch_size_of, resolve
from hnc_ds.errors import counted
from hnc_ds.model.clip import TOWERS, Clip
from hnc_ds.model.load import without_weights
from hnc_ds.shards.loader import TrainingData
from hnc_ds.shards.order import epoch_positions, steps_of_epochs
from hnc_ds.shards.remote import is_url
from hnc_ds.training import setup
from hnc_ds.training.activations import Activations, measure_activations
from hnc_ds.training.choices import count_images, read_deepspeed, with_deepspeed_config

GIB, MIB = 2**30, 2**20

MOMENTS = {
    **{"adagrad": 1, "lion": 1, "rmsprop": 1, "sgd": 0},
    **dict.fromkeys(("adam", "adamw", "lamb", "adamax", "nadam", "radam", "adadelta"), 2),
}
"""Tensors of the size of the weights that an optimizer keeps; SGD one with momentum."""

PERSISTENT = 100_000
"""Numbers of a parameter up to which ZeRO 3 leaves it whole on every GPU, DeepSpeed's default."""


class Part(NamedTuple):
    """Memory of one GPU."""

    name: str
    bytes: float
    note: str
    on_host: bool = False
    """In the memory of the node, not of the GPU."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters of a model."""

    all: int
    """With the reference model's own."""
    trained: int
    small: int
    """Of those that ZeRO 3 does not divide."""


def count_parameters(model: torch.nn.Module, persistent: int = PERSISTENT) -> Parameters:
    """Count a model's parameters.

    Args:
        model: With its reference model, and ``requires_grad`` set.
        persistent: stage3_param_persistence_threshold.
    """
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Parameters(
        sum(size for size, _ in sizes),
        sum(size for size, trains in sizes if trains),
        sum(size for size, _ in sizes if size < persistent),
    )


def state_parts(
    parameters: Parameters, deepspeed: Mapping[str, Any], ranks: int, averages: int = 0
) -> list[Part]:
    """Memory of weights, gradients and optimizer state on each GPU.

    Args:
        parameters: Of the model.
        deepspeed: Result of ``resolve``.
        ranks: Number of GPUs.
        averages: Further fp32 tensors of the size of the trained weights, such as --ema's.
    """
    zero = deepspeed.get("zero_optimization", {})
    stage, name = zero.get("stage", 0), precision(deepspeed)
    width = 4 if name == "fp32" else 2
    trained, own = parameters.trained, parameters.trained / (ranks if stage else 1)
    divided = parameters.all - parameters.small if stage == 3 else 0
    whole = parameters.all - divided + divided / ranks
    gradients, gradient_width = (own if stage >= 2 else trained), width
    if deepspeed.get("data_types", {}).get("grad_accum_dtype") == "fp32":
        gradient_width = 4
    moments = _moments(deepspeed["optimizer"])
    masters = own if stage else 0
    share = f", 1 of {ranks} parts" if stage and ranks > 1 else ""
    host = _on_host(zero, "offload_optimizer")
    kept = [*(["fp32 weights"] if stage else []), counted(moments, "moment")]
    parts = [
        Part(
            "weights",
            whole * width,
            name + (share if stage == 3 else ""),
            stage == 3 and _on_host(zero, "offload_param"),
        ),
        Part(
            "gradients",
            gradients * gradient_width,
            ("fp32" if gradient_width == 4 else name) + (share if stage >= 2 else ""),
        ),
        Part("optimizer", 4 * (masters + moments * own), f"{' and '.join(kept)}{share}", host),
    ]
    if averages:
        parts.append(Part("averages", 4 * averages * own, f"--ema or l2_sp, fp32{share}", host))
    return parts


def precision(deepspeed: Mapping[str, Any]) -> str:
    """bf16, fp16 or fp32: what weights are computed in."""
    enabled = (half for half in ("bf16", "fp16") if deepspeed.get(half, {}).get("enabled"))
    return next(enabled, "fp32")


def _moments(optimizer: Mapping[str, Any]) -> int:
    params = optimizer.get("params", {})
    extra = bool(params.get("momentum")) + bool(params.get("amsgrad"))
    return MOMENTS.get(str(optimizer["type"]).lower(), 2) + extra


def _on_host(zero: Mapping[str, Any], section: str) -> bool:
    return bool(zero.get(section, {}).get("device", "none") != "none")


ASSUMED_CAPTION = (
    "The small brown dog to the left of the man in the blue shirt is lying on the dry green grass."
)
"""Stands for captions of data that are not here: 24 tokens of CLIP's, as many as the longest of 309
captions of GQA's vocabulary."""

ASSUMED_CAPTIONS = 4.83
"""Distinct captions of an image with 4 hard negatives: 309 of 64 images, measured."""


class Texts(NamedTuple):
    """Captions of a step."""

    token_TL: torch.Tensor
    """A sample."""
    captions: float
    """Distinct captions of an image."""
    are_drawn: bool
    """Whether they come from the shards."""


def assumed_texts(config: TrainConfig, clip: Clip) -> Texts:
    """Captions of data that are not here."""
    data = config.data
    slots = (ASSUMED_CAPTIONS - 1) / 4 * data.hard_negatives
    captions = slots + data.positives + data.unrelated_negatives
    return Texts(clip.tokenize([ASSUMED_CAPTION]), captions, are_drawn=False)


SAMPLED = 8
"""Images whose captions stand for all."""


def drawn_texts(data: TrainingData) -> Texts:
    """Captions of the first images of the first step."""
    batch = data.batch(0, range(min(SAMPLED, data.rows)))
    captions = len(batch.token_TL) / len(batch.positive_B)
    return Texts(batch.token_TL, captions, are_drawn=True)


class MeasuredSpeed(NamedTuple):
    """Training on one H100 80GB at an earlier commit, 4 hard negatives an image (docs/speed.md)."""

    model: str
    batch: int
    flops: float
    """Of a forward pass of one image and its captions."""
    images_per_second: float

    def rate(self) -> float:
        """Operations a second; the backward pass has twice those of the forward pass."""
        return 3 * self.flops * self.images_per_second


TEXT_TOKENS = ASSUMED_CAPTIONS * 24
MEASURED = (
    MeasuredSpeed("ViT-B-32", 512, 8.725e9 + TEXT_TOKENS * 0.0755e9, 1970),
    MeasuredSpeed("ViT-L-14-336", 64, 349.2e9 + TEXT_TOKENS * 0.170e9, 130),
)


MOST_UNLIKE = 10
"""Ratio of operations from which on a measured model is no basis for another one."""


def nearest_speed(flops: float) -> MeasuredSpeed | None:
    """The measured model whose forward pass has the most similar number of operations, if any."""

    def ratio(known: MeasuredSpeed) -> float:
        return max(known.flops / flops, flops / known.flops)

    nearest = min(MEASURED, key=ratio)
    return nearest if ratio(nearest) < MOST_UNLIKE else None


class Plan(NamedTuple):
    """A run on paper."""

    config: TrainConfig
    """With its steps."""
    deepspeed: Mapping[str, Any]
    """Result of ``resolve``."""
    ranks: int
    images: int
    epoch: int
    """``epoch_positions``."""


def lines(plan: Plan, model: torch.nn.Module, texts: Texts | None) -> Iterator[str]:
    """The report of a plan.

    Args:
        plan: The run.
        model: What trains, on the CPU, in fp32.
        texts: Captions; None for image-text matching models, whose activations and speed are not
            estimated.
    """
    zero = plan.deepspeed.get("zero_optimization", {})
    threshold = zero.get("stage3_param_persistence_threshold", PERSISTENT)
    parameters = count_parameters(model, threshold)
    used = None
    if isinstance(model, Clip) and texts is not None:
        used = measure_activations(model, texts.token_TL, plan.config.grad_checkpointing)
    tokens = _tokens(model, texts)
    yield from _sizes(plan, parameters, texts, tokens)
    yield from _memory(plan, parameters, used, tokens)
    yield _time(plan, model, used, tokens)


def _tokens(model: torch.nn.Module, texts: Texts | None) -> float:
    """Text tokens that are computed for an image."""
    if texts is None or not isinstance(model, Clip):
        return 0.0
    return texts.captions * float(model.computed_tokens(texts.token_TL).float().mean())


def _sizes(plan: Plan, parameters: Parameters, texts: Texts | None, tokens: float) -> Iterator[str]:
    config, batch = plan.config, plan.deepspeed["train_batch_size"]
    whole, trained = parameters.all / 1e6, parameters.trained / 1e6
    yield f"parameters   {whole:,.1f} M, {trained:,.1f} M of them train"
    micro = counted(plan.deepspeed["gradient_accumulation_steps"], "micro-batch", "micro-batches")
    each = batch // plan.ranks
    yield f"batch        {counted(batch, 'image')} of all GPUs, {each} on each in {micro}"
    if texts is not None:
        basis = "counted in the shards" if texts.are_drawn else "assumed"
        yield f"text         {texts.captions:.1f} captions an image, {tokens:.0f} tokens, {basis}"
    epochs = config.steps * batch / plan.epoch
    length = f"{counted(config.steps, 'step')}, {epochs:.2f} epochs"
    yield f"length       {length} of {counted(plan.images, 'image')}"


def _memory(
    plan: Plan, parameters: Parameters, used: Activations | None, tokens: float
) -> Iterator[str]:
    weights = plan.config.loss.weights()
    averages = (plan.config.ema is not None) + ("l2_sp" in weights)
    parts = state_parts(parameters, plan.deepspeed, plan.ranks, averages)
    if used is not None:
        parts.append(_activations(plan, used, tokens))
    yield f"memory       of {'each' if plan.ranks > 1 else 'the'} GPU"
    for part in parts:
        place = "in host memory; " if part.on_host else ""
        yield f"  {part.name:<11}{_shown(part.bytes):>11}  {place}{part.note}"
    total = sum(part.bytes for part in parts if not part.on_host)
    lacks = "" if used else "activations, "
    yield f"  {'sum':<11}{_shown(total):>11}  without {lacks}{NOT_COUNTED}"


NOT_COUNTED = "CUDA's context, DeepSpeed's buckets and tiles of the loss"


def _shown(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / MIB:.1f} MiB"


def _activations(plan: Plan, used: Activations, tokens: float) -> Part:
    rows = plan.deepspeed["train_micro_batch_size_per_gpu"]
    half = 1.0 if precision(plan.deepspeed) == "fp32" else 0.5
    image, token = used.image.each * half, used.token.each * half
    each = f"{image / MIB:.1f} MiB an image, {token / 1024:.0f} KiB a token"
    note = f"estimate: {each}, counted on a CPU"
    return Part("activations", used.bytes(rows, rows * tokens) * half, note)


NOT_MEASURED = "no such model was measured; give --images_per_second"


def _time(plan: Plan, model: torch.nn.Module, used: Activations | None, tokens: float) -> str:
    images = plan.config.steps * plan.deepspeed["train_batch_size"]
    speed, basis = plan.config.plan.images_per_second, "as given"
    if speed is None:
        known = used and nearest_speed(used.image_flops + tokens * used.token_flops)
        if not known or not used or not isinstance(model, Clip):
            return f"time         not estimated: {NOT_MEASURED}"
        speed = plan.ranks * known.rate() / _operations(plan, model, used, tokens)
        basis = (
            f"estimate: {known.rate() / 1e12:.0f} TFLOP/s a GPU, as\n             {known.model} at "
            f"batch {known.batch} had on one H100, at an earlier commit"
        )
    return f"time         {images / speed / 3600:.2f} hours at {speed:,.0f} images/s; {basis}"


def _operations(plan: Plan, clip: Clip, used: Activations, tokens: float) -> float:
    """Operations of a step for one image: a backward pass has twice those of the forward pass,
    activations that are computed again, micro-batches and the reference model need another forward
    pass, and a frozen tower has one alone."""
    again = plan.config.grad_checkpointing + (plan.deepspeed["gradient_accumulation_steps"] > 1)
    again += clip.reference is not None
    passes = {name: 1 if clip.is_frozen(name) else 3 + again for name in TOWERS}
    return passes["image"] * used.image_flops + passes["text"] * tokens * used.token_flops


def dry_run(config: TrainConfig, scenes: int) -> None:
    """Print what a run would cost.

    Args:
        config: Settings.
        scenes: Images of a run without --shards.

    Raises:
        UserError: The settings do not fit each other, or the shards cannot be read.
    """
    if config.deepspeed_config is None:
        config = with_deepspeed_config(config)
    path, written = read_deepspeed(config)
    ranks, data = config.plan.dry_run_gpus or world_size(), config.data
    batch = batch_size_of(written, path, ranks)
    images = config.plan.dry_run_images or (count_images(data) if data.folders else scenes)
    epoch = epoch_positions(images, data)
    if config.epochs is not None:
        config = replace(config, steps=steps_of_epochs(config.epochs, epoch, batch))
    deepspeed = resolve(written, path, ranks, config.steps)
    bare = replace(config, model=without_weights(config.model))
    model = setup.set_up(bare, None).model
    setup.refuse_inexact(config, model, deepspeed)
    plan = Plan(config, deepspeed, ranks, images, epoch)
    texts = _texts_of(config, model) if isinstance(model, Clip) else None
    on = f"on {counted(ranks, 'GPU')} with {config.deepspeed_config}"
    print(f"train: dry run of {config.model.model} {on}; nothing is written")
    print("\n".join(lines(plan, model, texts)), flush=True)


def _texts_of(config: TrainConfig, clip: Clip) -> Texts:
    folders = config.data.folders
    if not folders or any(map(is_url, folders)):  # whose shards would be written to the cache
        return assumed_texts(config, clip)
    rows, views = range(SAMPLED), (clip.image_settings, clip.tokenize)
    plain = replace(config.data, similar=None)
    data = TrainingData(folders, plain, config.seed, SAMPLED, rows, *views)
    return drawn_texts(data)
