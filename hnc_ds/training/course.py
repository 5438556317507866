"""How a run begins and how it is continued: its record, its model, what must have stayed.

The record is the run's config.json: settings, DeepSpeed's JSON, versions, and what the start
weights were, where a resumed run needs them again.
"""

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hnc_ds.checkpoint import Saved, load_saved
from hnc_ds.config import OF_START, DataConfig, ModelConfig, ScopeConfig, TrainConfig
from hnc_ds.distributed import world_size
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.mix import state_sha256
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_folder, load_model
from hnc_ds.model.scope import choose_scope
from hnc_ds.settings_file import to_json

MAY_MOVE = frozenset(("shards", "cache", "cache_gb", "workers"))
"""Settings of the data that change nothing drawn; what the shards hold is compared by itself."""


class Beginning(NamedTuple):
    """The model as training takes it up."""

    clip: Clip
    start_weights: dict[str, torch.Tensor]
    """Of what trains, by name; only where they pull (l2_to_start)."""
    start_digest: str | None
    """sha256 of the start weights, where they will be needed again."""


def begin(config: TrainConfig, saved: Saved | None) -> Beginning:
    """Make the model: the start model, or what a checkpoint holds of it by now.

    Raises:
        UserError: It cannot be had, or a setting does not go with it.
    """
    needed = needs_start(config)
    if saved and not needed:
        clip = load_folder(saved.folder).train()
    else:
        clip = load_model(config.model, config.seed)
    digest = state_sha256(clip.state_by_open_clip_name(), clip.config) if needed else None
    torch.manual_seed(config.seed)  # low-rank changes are drawn: the same on every rank
    choose_scope(clip, config.scope)
    if config.loss.tau is not None:
        clip.fix_temperature(config.loss.tau)
    if not any(parameter.requires_grad for parameter in clip.parameters()):
        raise UserError("nothing trains; choose other --towers, --last_blocks or --lora_rank")
    if OF_START & set(config.loss.weights()) - {"l2_to_start"}:
        clip.remember_start()
    trained = {name: p for name, p in clip.named_parameters() if p.requires_grad}
    pull = "l2_to_start" in config.loss.weights()
    start = {name: p.detach().clone() for name, p in trained.items()} if pull else {}
    if saved and needed:
        load_saved(clip, saved)
    if config.grad_checkpointing:
        clip.towers.set_grad_checkpointing(True)
    return Beginning(clip, start, digest)


def needs_start(config: TrainConfig) -> bool:
    """Whether a resumed run needs the start weights again."""
    return bool(OF_START & set(config.loss.weights())) or config.scope.lora_rank is not None


def refuse_inexact(config: TrainConfig, clip: Clip, deepspeed: Mapping[str, Any]) -> None:
    """Refuse what could only be approximated.

    Raises:
        UserError: Batch statistics over a divided batch; a pull that DeepSpeed's clipping on the
            host would not see.
    """
    parts = deepspeed["gradient_accumulation_steps"]
    if clip.has_batch_statistics() and (world_size() > 1 or parts > 1):
        raise UserError(
            f"model {config.model.model} has batch normalisation, whose statistics over "
            f"{counted(world_size(), 'rank')} and {counted(parts, 'part')} would not be those of "
            "the batch; "
            "train with --towers text, or on one rank in one part"
        )
    if "l2_to_start" not in config.loss.weights():
        return
    if "offload_optimizer" in deepspeed.get("zero_optimization", {}):
        raise UserError(
            "l2_to_start cannot be added to gradients that are offloaded; "
            "remove offload_optimizer, or use distill"
        )
    autocast = deepspeed.get("torch_autocast", {})
    if autocast.get("enabled") and "bf" not in str(autocast.get("dtype")):
        raise UserError(
            "l2_to_start cannot be added to gradients that torch_autocast scales; write bfloat16 "
            "to its dtype, or use distill"
        )


def record(
    config: TrainConfig, deepspeed: dict[str, Any], start: str | None, shards: str, clip: Clip
) -> dict[str, Any]:
    """What a run's config.json holds.

    Args:
        config: As the run was started.
        deepspeed: As resolved.
        start: sha256 of the start weights.
        shards: Of what the shards hold.
        clip: The model, whose activation and preprocessing may have been decided by evidence.
    """
    return {
        "settings": to_json(config),
        "deepspeed": deepspeed,
        "ranks": world_size(),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "open_clip_torch")},
        "commit": _commit(),
        "start_weights": start,
        "shards": shards,
        "computes": {
            "quick_gelu": bool(clip.config["model_cfg"].get("quick_gelu", False)),
            "preprocess": clip.config["preprocess_cfg"],
        },
    }


def check_same_content(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Refuse to go on with other shards or start weights than those of the steps done.

    Args:
        before: Of ``record`` when the run was last started.
        now: Of ``record``.
        run: Its folder.

    Raises:
        UserError: They have changed since.
    """

    def changed(name: str) -> bool:
        return bool(before.get(name) and now[name] and before[name] != now[name])

    if changed("shards"):
        raise UserError(
            f"{run}: was trained on other shards; give those, wherever they lie now, to --shards"
        )
    if changed("start_weights"):
        raise UserError(
            f"{run}: its start weights are not those of before, and the objective or LoRA needs "
            "them; put the file back that the run began with"
        )


def check_same_course(
    config: TrainConfig, deepspeed: dict[str, Any], before: dict[str, Any], run: Path
) -> None:
    """Refuse to continue with settings under which the steps done would have been others.

    Raises:
        UserError: Names the first setting that changed.
    """
    now, then = to_json(config), before["settings"]
    # What a run of before did not know was off; most_of_one changes nothing of its draws, as its
    # shards do not say what negatives are about.
    drawn = to_json(DataConfig()) | then["data"]
    scope = to_json(ScopeConfig()) | then.get("scope", {})
    pairs = [
        ("seed", now["seed"], then["seed"]),
        ("model", now["model"], to_json(ModelConfig()) | then["model"]),
        *((key, now["data"][key], drawn[key]) for key in now["data"] if key not in MAY_MOVE),
        *((key, now["scope"][key], scope[key]) for key in now["scope"]),
        (
            "train_batch_size",
            deepspeed["train_batch_size"],
            before["deepspeed"]["train_batch_size"],
        ),
    ]
    for name, new, old in pairs:
        if new != old:
            raise UserError(
                f"{run}: was trained with {name} {old}, not {new}; resume with the same, "
                f"for example with --config {run / 'config.json'}"
            )


def check_steps(config: TrainConfig, done: int, run: Path) -> None:
    """Refuse to continue a run to fewer steps than it has.

    Raises:
        UserError: It has more.
    """
    if done > config.steps:
        raise UserError(
            f"{run}: has done {counted(done, 'step')} already, more than --steps {config.steps}; "
            "name more "
            "to continue it, or choose another --run"
        )


def _commit() -> str | None:
    """The commit of the checkout this runs from; None where it is installed."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return None
    return asked.stdout.strip() or None
