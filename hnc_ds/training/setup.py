"""The model at the start of a run, the run's config.json, and what must not change on resuming."""

import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from hnc_ds.checkpoint import Checkpoint, load_saved, to_json
from hnc_ds.config import LOSS_TERMS, DataConfig, ModelConfig, ScopeConfig, TrainConfig
from hnc_ds.distributed import world_size
from hnc_ds.errors import UserError, counted, holding
from hnc_ds.evaluation.embed import refuse_broken_weights
from hnc_ds.model.clip import Clip, state_sha256
from hnc_ds.model.load import (
    CROSS_ENCODERS,
    is_cross_encoder,
    load_folder,
    load_model,
    needs_transformers,
)
from hnc_ds.model.scope import choose_scope
from hnc_ds.training.matching import needs_embeddings

if TYPE_CHECKING:
    from hnc_ds.model.cross_encoder import CrossEncoder

MAY_MOVE = frozenset(("shards", "cache", "cache_gb", "workers"))
"""Data settings without influence on what is drawn; the shards' content is compared separately."""


Model: TypeAlias = "Clip | CrossEncoder"
"""What trains."""


class ModelSetup(NamedTuple):
    """The model that training starts from."""

    model: Model
    reference_weights: dict[str, torch.Tensor]
    """Initial values of what trains, by parameter name; only for l2_sp."""
    reference_sha256: str | None
    """sha256 of the initial model, if a resumed run needs it again."""


def set_up(config: TrainConfig, saved: Checkpoint | None) -> ModelSetup:
    """Load the initial model, or that of a checkpoint, and choose what of it trains.

    Raises:
        UserError: It cannot be loaded, has weights that are not finite, or a setting does not fit
            it.
    """
    if is_cross_encoder(config.model.model):
        return ModelSetup(_cross_encoder(config, saved), {}, None)
    needed = needs_reference(config)
    if saved and not needed:
        clip = load_folder(saved.folder).train()
    else:
        clip = load_model(config.model, config.seed)
        refuse_broken_weights(clip, config.model.model)
        clip.keep_scale()
    digest = state_sha256(clip.state_by_open_clip_name(), clip.config) if needed else None
    torch.manual_seed(config.seed)  # LoRA's random initialization is the same on every rank
    choose_scope(clip, config.scope)
    if config.loss.tau is not None:
        clip.fix_temperature(config.loss.tau)
    if config.loss.trains_bias():
        clip.train_bias(None if saved else config.loss.bias)
    if not any(parameter.requires_grad for parameter in clip.parameters()):
        raise UserError("nothing trains; choose other --towers, --last_blocks or --lora_rank")
    if clip.is_frozen("text") and config.loss.is_of_captions():
        raise UserError(
            f"terms {', '.join(config.loss.weights())} do not see the image tower, and the text "
            "tower does not train; choose other --towers, or a term such as contrastive"
        )
    if config.loss.needs_reference(on_weights=False):
        clip.keep_reference()
    reference: dict[str, torch.Tensor] = {}
    if config.loss.needs_reference(on_weights=True):
        trained = ((name, p) for name, p in clip.named_parameters() if p.requires_grad)
        reference = {name: p.detach().clone() for name, p in trained}
    if saved and needed:
        load_saved(clip, saved)
    if config.grad_checkpointing:
        clip.towers.set_grad_checkpointing(True)
    return ModelSetup(clip, reference, digest)


def _cross_encoder(config: TrainConfig, saved: Checkpoint | None) -> "CrossEncoder":
    with needs_transformers(config.model.model):
        from hnc_ds.model.cross_encoder import load_cross_encoder
    torch.manual_seed(config.seed)  # random weights of a missing head are the same on every rank
    name = str(saved.folder) if saved else config.model.model.removeprefix(CROSS_ENCODERS)
    model = load_cross_encoder(name, may_lack_head=saved is None)
    refuse_broken_weights(model, name)
    model.prepare_for_training(needs_embeddings(config))
    if config.grad_checkpointing:
        model.towers.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def needs_reference(config: TrainConfig) -> bool:
    """Whether a resumed run needs the initial model again."""
    loss = config.loss
    return (
        config.scope.lora_rank is not None
        or (loss.needs_reference(on_weights=False) and not loss.follows_average())
        or loss.needs_reference(on_weights=True)
    )


def refuse_inexact(config: TrainConfig, clip: Model, deepspeed: Mapping[str, Any]) -> None:
    """Refuse settings whose result would only be approximate.

    Raises:
        UserError: Batch normalization over a divided batch or one that is computed twice, or l2_sp
            where its gradient cannot be added before DeepSpeed clips, or a moving average as
            reference model that is not whole.
    """
    micro_batches = deepspeed["gradient_accumulation_steps"]
    if micro_batches > 1 and is_cross_encoder(config.model.model) and needs_embeddings(config):
        raise UserError(
            f"gradient_accumulation_steps is {micro_batches}: terms other than itm and "
            "match_margin, and mined negatives, need the whole batch of an image-text matching "
            "model; use 1, and --grad_checkpointing where memory is short"
        )
    if clip.has_batch_statistics() and (world_size() > 1 or micro_batches > 1):
        divided = counted(micro_batches, "micro-batch", "micro-batches")
        raise UserError(
            f"model {config.model.model} has batch normalization, whose statistics over "
            f"{counted(world_size(), 'rank')} and {divided} "
            "would not be those of the batch; train with --towers text, or on one rank with "
            "gradient_accumulation_steps 1"
        )
    if clip.has_batch_statistics() and config.grad_checkpointing:
        raise UserError(
            f"model {config.model.model} has batch normalization, whose running statistics would "
            "count each batch twice with grad_checkpointing; remove it, or train with --towers text"
        )
    if config.loss.follows_average():
        if deepspeed.get("zero_optimization", {}).get("stage") == 3:
            raise UserError(
                "reference average needs whole weights on every rank, which ZeRO 3 divides; use "
                "stage 0, 1 or 2, or --reference start"
            )
        if clip.has_batch_statistics():
            raise UserError(
                f"reference average: batch normalization of model {config.model.model} has "
                "statistics that are not averaged; train with --towers text, or --reference start"
            )
    if "l2_sp" not in config.loss.weights():
        return
    if "offload_optimizer" in deepspeed.get("zero_optimization", {}):
        raise UserError(
            "l2_sp cannot be added to gradients that are offloaded; "
            "remove offload_optimizer, or use distill"
        )
    autocast = deepspeed.get("torch_autocast", {})
    if autocast.get("enabled") and "bf" not in str(autocast.get("dtype")):
        raise UserError(
            "l2_sp cannot be added to gradients that torch_autocast scales; write bfloat16 "
            "to its dtype, or use distill"
        )


def check_negatives(config: TrainConfig, types: Collection[str]) -> None:
    """Refuse terms that need hard negatives where the shards hold none.

    Args:
        config: Settings.
        types: Types of negatives in the shards.

    Raises:
        UserError: There are no types.
    """
    if (names := config.loss.terms_of_negatives()) and not types:
        raise UserError(
            f"terms {', '.join(names)} need hard negatives; {holding(config.data.folders)} none, "
            "make some with 'hnc-ds swap-words'"
        )


def record(
    config: TrainConfig,
    deepspeed: dict[str, Any],
    reference: str | None,
    shards: Sequence[str],
    clip: Model,
) -> dict[str, Any]:
    """The content of a run's config.json.

    Args:
        config: Settings as given.
        deepspeed: DeepSpeed's JSON, resolved.
        reference: sha256 of the initial model, if a resumed run needs it again.
        shards: Fingerprint of each folder's content.
        clip: The model, for its activation and preprocessing, which may be inferred.
    """
    settings = to_json(config)
    if not config.data.mix:  # as in earlier versions, whose runs may be other seeds of this one
        del settings["data"]["mix"]
    return {
        "settings": settings,
        "deepspeed": deepspeed,
        "ranks": world_size(),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "open_clip_torch")},
        "commit": _commit(),
        "reference_weights": reference,
        "shards": shards[0] if len(shards) == 1 else list(shards),
        "computes": _computes(clip),
    }


def _computes(clip: Model) -> dict[str, Any]:
    if not isinstance(clip, Clip):
        return {"preprocess": asdict(clip.image_settings)}
    return {
        "quick_gelu": bool(clip.config["model_cfg"].get("quick_gelu", False)),
        "preprocess": clip.config["preprocess_cfg"],
    }


def check_same_content(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Refuse to resume with other shards or another reference model.

    Args:
        before: ``record`` when the run was last started.
        now: ``record`` now.
        run: Its folder.

    Raises:
        UserError: They have changed.
    """

    def changed(name: str) -> bool:
        return bool(before.get(name) and now[name] and before[name] != now[name])

    if changed("shards"):
        if isinstance(now["shards"], list) and sorted(before["shards"]) == sorted(now["shards"]):
            raise UserError(
                f"{run}: was trained on these folders in another order; give them to --shards in "
                "that of its config.json"
            )
        raise UserError(
            f"{run}: was trained on other shards; pass those to --shards, at whatever path"
        )
    if changed("reference_weights"):
        raise UserError(
            f"{run}: its initial weights have changed, and the objective or LoRA needs them; put "
            "the file back that the run was started with"
        )


def check_same_settings(config: TrainConfig, batch: int, before: dict[str, Any], run: Path) -> None:
    """Refuse to resume with settings under which the finished steps would have been different.

    Raises:
        UserError: Names the first setting that changed.
    """
    now, then = to_json(config), before["settings"]
    # Settings that an older run does not have were off. most_of_one is without effect on its draws,
    # as its shards do not record what negatives are about.
    drawn = to_json(DataConfig()) | then["data"]
    scope = to_json(ScopeConfig()) | then.get("scope", {})
    terms = then.get("loss", {}).get("terms") or {}
    pairs = [
        ("seed", now["seed"], then["seed"]),
        ("model", now["model"], to_json(ModelConfig()) | then["model"]),
        *((key, now["data"][key], drawn[key]) for key in now["data"] if key not in MAY_MOVE),
        *((key, now["scope"][key], scope[key]) for key in now["scope"]),
        ("tau", config.loss.tau, then.get("loss", {}).get("tau")),
        ("terms that train logit_bias", _with_bias(config.loss.weights()), _with_bias(terms)),
        ("train_batch_size", batch, before["deepspeed"]["train_batch_size"]),
    ]
    for name, new, old in pairs:
        if new != old:
            raise UserError(
                f"{run}: was trained with {name} {old}, not {new}; resume with the same value, "
                f"for example with --config {run}"
            )


def _with_bias(terms: Mapping[str, float]) -> str:
    """Those of the terms that train the model's logit_bias."""
    training = [name for name, term in LOSS_TERMS.items() if term.trains_bias]
    return ", ".join(name for name in training if terms.get(name, 0) > 0) or "none"


def check_steps(config: TrainConfig, done: int, run: Path) -> None:
    """Raise UserError if a run has done more steps than the settings ask for."""
    if done > config.steps:
        flag, asked = "--steps", f"--steps {config.steps}"
        if config.epochs is not None:
            flag, asked = "--epochs", f"the {config.steps} of --epochs {config.epochs:g}"
        raise UserError(
            f"{run}: has done {counted(done, 'step')} already, more than {asked}; raise {flag} to "
            "continue it, or choose another --run"
        )


def _commit() -> str | None:
    """The git commit of the checkout that runs; None for an installed package."""
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return None
    return result.stdout.strip() or None
