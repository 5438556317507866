"""The run folder: settings, checkpoints that are complete or absent, and loading them again.

    runs/NAME/config.json
    runs/NAME/checkpoints/step-000500/{model.safetensors, open_clip_config.json,
                                       optimizer.safetensors, state.json}
                                      /adapters.safetensors     LoRA's changes, before merging
                                      /tokenizer.json ... text_tower/config.json    Hugging Face's
                                      /average/{model.safetensors, open_clip_config.json}

A checkpoint is written under another name, flushed to disk and renamed, so no step ever sees half
of one. Weights and moments are whole fp32 tensors by open_clip's names: no pickle, any number of
ranks. A checkpoint folder, and average/ in it, opens in open_clip as ``local-dir:FOLDER``.
"""

import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hnc_ds.distributed import rank
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.clip_folder import is_clip_folder
from hnc_ds.model.load import CONFIG_NAME, WEIGHTS_NAME, load_folder
from hnc_ds.model.low_rank import is_change, merged
from hnc_ds.model.text_files import config_bytes, write_beside
from hnc_ds.reading import read_json, reading
from hnc_ds.whole_files import whole_folder, write_whole

MOMENTS_NAME = "optimizer.safetensors"
ADAPTERS_NAME = "adapters.safetensors"
AVERAGES_NAME = "averages.safetensors"
CONTINUED_FROM = (WEIGHTS_NAME, MOMENTS_NAME, ADAPTERS_NAME, AVERAGES_NAME)
"""Files by which a training continues."""
AVERAGE_NAME = "average"
"""Folder in a checkpoint of the averaged model."""
STATE_NAME = "state.json"
SETTINGS_NAME = "config.json"
STEP = re.compile(r"step-[0-9]+")
PREFIX = "towers."
"""Of our parameter names before open_clip's."""


class Saved(NamedTuple):
    """A checkpoint, read back. Tensors are whole, by our parameter names."""

    step: int
    folder: Path
    weights: dict[str, torch.Tensor]
    """With LoRA, the merged matrices under their plain names, and the changes under their own."""
    moments: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    scalars: dict[str, Any]


class Contents(NamedTuple):
    """What a checkpoint is made of, all of it on the CPU and nobody else's."""

    files: dict[str, dict[str, torch.Tensor]]
    """Tensors by the file's name in the checkpoint."""
    config: dict[str, Any]
    """open_clip_config.json."""
    scalars: Mapping[str, Any]
    beside: Mapping[str, bytes]
    """Files that lie beside each file of weights: what opens a Hugging Face text side."""


def next_free_run(root: Path = Path("runs")) -> Path:
    """runs/train-001, or the first number after it that is free."""
    number = 1
    while (folder := root / f"train-{number:03d}").exists():
        number += 1
    return folder


def refuse_existing(run: Path, resume: bool) -> None:
    """Keep an earlier run from being overwritten.

    Raises:
        UserError: The folder exists and is not to be resumed.
    """
    if run.exists() and not resume:
        raise UserError(f"{run}: exists; choose another --run, or add --resume to continue it")


def start_run(run: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder of a run, if need be, and write its settings.

    Raises:
        UserError: It cannot be written.
    """
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_whole(run / SETTINGS_NAME, json.dumps(settings, indent=2, sort_keys=True).encode())
    except OSError as error:
        raise UserError(f"{run}: cannot be written ({error.strerror})") from error


def read_settings(run: Path) -> dict[str, Any]:
    """A run's config.json.

    Raises:
        UserError: No such run, or not its settings.
    """
    path = run / SETTINGS_NAME
    if not path.exists():
        raise UserError(f"{run}: not a run folder, it has no {SETTINGS_NAME}")
    settings = read_json(path, "it is written when a run starts", "not JSON")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not the settings of a run")
    return settings


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first; unfinished and damaged ones are left out."""
    return [folder for folder in _checkpoints(run) if flaw_of(folder) is None]


def step_of(checkpoint: Path) -> int:
    """Steps done in a checkpoint, by the name of its folder."""
    return int(checkpoint.name.removeprefix("step-"))


class _State(msgspec.Struct):
    """state.json."""

    step: int
    files: dict[str, int]
    """Size of every file, in bytes."""
    crc32: dict[str, int] = {}
    """Of its bytes; checkpoints of before have none."""
    scalars: dict[str, Any] = {}


def flaw_of(checkpoint: Path, read: Collection[str] = ()) -> str | None:
    """What is missing from a checkpoint or damaged in it; None where it is complete: the marker is
    there, and every file has the size it names.

    Args:
        checkpoint: Its folder.
        read: Names of files that are going to be read: every byte of them is checked as well.
    """
    if not (checkpoint / STATE_NAME).exists():
        return f"{STATE_NAME} is missing, so it was not written to its end"
    try:
        state = msgspec.convert(read_json(checkpoint / STATE_NAME), _State)
    except (UserError, msgspec.ValidationError) as error:
        return f"{STATE_NAME} is damaged ({error})"
    number = checkpoint.name.removeprefix("step-")  # of a copy the name may be any other
    if (number.isdecimal() and int(number) != state.step) or WEIGHTS_NAME not in state.files:
        return f"{STATE_NAME} is not that of this checkpoint"
    flaws = (_flaw_of_file(checkpoint, name, size) for name, size in state.files.items())
    if flaw := next((flaw for flaw in flaws if flaw), None):
        return flaw
    sums = ((name, crc32) for name, crc32 in state.crc32.items() if name in read)
    changed = (name for name, crc32 in sums if _crc32_of(checkpoint / name) != crc32)
    return next((f"{name} holds other bytes than were written" for name in changed), None)


def latest(run: Path, read: Collection[str]) -> Path | None:
    """The newest complete checkpoint; reports it on stderr, and why newer ones are left out.

    Args:
        run: Folder of the run.
        read: As ``flaw_of``.

    Returns:
        None where the run has no checkpoint folder at all.

    Raises:
        UserError: There are some, and none is complete.
    """
    left_out: list[str] = []
    for folder in reversed(_checkpoints(run)):
        flaw = flaw_of(folder, read)
        if flaw is None:
            _report(run, folder, left_out)
            return folder
        left_out.append(f"{folder.name} is left out: {flaw}")
    if left_out:
        raise UserError(
            f"{run}: no checkpoint is complete ({left_out[0]}); put the file back, or remove "
            f"{run / 'checkpoints'} to start over"
        )
    return None


def newest_checkpoint(run: Path) -> Path:
    """The last complete checkpoint of a run, as ``latest`` reports it.

    Raises:
        UserError: No such run, nothing saved yet, or nothing complete.
    """
    read_settings(run)
    found = latest(run, (WEIGHTS_NAME,))
    if found is None:
        raise UserError(f"{run}: no complete checkpoint there yet; train it first")
    return found


def _checkpoints(run: Path) -> list[Path]:
    """All of a run's checkpoint folders by step, complete or not."""
    found = [path for path in (run / "checkpoints").glob("step-*") if STEP.fullmatch(path.name)]
    return sorted(found, key=step_of)


def _report(run: Path, taken: Path, left_out: list[str]) -> None:
    if rank() == 0:
        told = "; ".join([*left_out, f"{taken.name} is taken"])
        print(f"{run}: {told}", file=sys.stderr, flush=True)


def _flaw_of_file(checkpoint: Path, name: str, size: int) -> str | None:
    try:
        found = (checkpoint / name).stat().st_size
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if found == size else f"{name} has {found:,} bytes, not {size:,}"


def _crc32_of(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def contents(
    model: Clip,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    averages: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> Contents:
    """Put together what a checkpoint holds, so that it can be written while training goes on.

    Args:
        model: For its configuration and buffers.
        weights: Whole parameters by our names.
        moments: Whole optimizer state by ``NAME/KEY``.
        averages: Averages of the trained parameters by our names, or nothing.
        scalars: JSON values of the engine.
    """
    files = {WEIGHTS_NAME: _open_clip_state(model, weights), MOMENTS_NAME: dict(moments)}
    if changes := {name: tensor for name, tensor in weights.items() if is_change(name)}:
        files[ADAPTERS_NAME] = changes
    if averages:
        files[f"{AVERAGE_NAME}/{WEIGHTS_NAME}"] = _open_clip_state(model, {**weights, **averages})
        files[AVERAGES_NAME] = dict(averages)
    return Contents(files, model.config, scalars, model.text_files())


def write(run: Path, step: int, made: Contents, keep_last: int, best: int | None = None) -> Path:
    """Write a checkpoint and drop the oldest beyond ``keep_last``. On one rank.

    Args:
        run: Folder of the run.
        step: Steps done.
        made: What it holds.
        keep_last: Checkpoints to keep.
        best: A step whose checkpoint is kept besides.

    Returns:
        Its folder.

    Raises:
        UserError: The disk is full or cannot be written; earlier checkpoints are as they were.
    """
    final = checkpoint_folder(run, step)
    try:
        with whole_folder(final) as partial:  # complete ones are never written twice
            write_files(partial, made, final)
            paths = sorted(path for path in partial.rglob("*") if path.is_file())
            names = [path.relative_to(partial).as_posix() for path in paths]
            state = _State(
                step,
                {name: path.stat().st_size for name, path in zip(names, paths, strict=True)},
                {name: _crc32_of(path) for name, path in zip(names, paths, strict=True)},
                dict(made.scalars),
            )
            write_whole(
                partial / STATE_NAME, json.dumps(msgspec.to_builtins(state), indent=2).encode()
            )
    except (OSError, SafetensorError) as error:
        kept = complete_checkpoints(run)
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{final}: cannot be written ({why}); make room and start again with --resume, "
            f"{f'{kept[-1].name} is complete' if kept else 'no earlier checkpoint exists'}"
        ) from error
    for old in complete_checkpoints(run)[:-keep_last]:
        if best is None or old != checkpoint_folder(run, best):
            shutil.rmtree(old)
    return final


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or will lie."""
    return run / "checkpoints" / f"step-{step:06d}"


def read(checkpoint: Path) -> Saved:
    """Read a checkpoint to go on from.

    Raises:
        UserError: Not complete.
    """
    if flaw := flaw_of(checkpoint):
        raise UserError(f"{checkpoint}: not a complete checkpoint; {flaw}")
    state = read_json(checkpoint / STATE_NAME)
    plain = _read_tensors(checkpoint / WEIGHTS_NAME)
    return Saved(
        state["step"],
        checkpoint,
        {f"{PREFIX}{name}": tensor for name, tensor in plain.items()}
        | _read_tensors(checkpoint / ADAPTERS_NAME),
        _read_tensors(checkpoint / MOMENTS_NAME),
        _read_tensors(checkpoint / AVERAGES_NAME),
        state.get("scalars", {}),
    )


def load_saved(clip: Clip, saved: Saved) -> None:
    """Give a model the weights of a checkpoint; what the checkpoint does not name stays."""
    with torch.no_grad():
        for name, tensor in (*clip.named_parameters(), *clip.named_buffers()):
            if name in saved.weights:
                tensor.copy_(saved.weights[name])


def load_trained(path: Path, device: torch.device) -> Clip:
    """The model of a run (its newest checkpoint) or of one checkpoint folder, for evaluation.

    Raises:
        UserError: Neither of them is there.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a run or a checkpoint")
    if (path / SETTINGS_NAME).is_file() and not is_clip_folder(path):
        return load_folder(newest_checkpoint(path)).to(device)
    if (path / STATE_NAME).is_file() and (flaw := flaw_of(path, (WEIGHTS_NAME,))):
        raise UserError(f"{path}: not a complete checkpoint; {flaw}")
    return load_folder(path).to(device)


def _open_clip_state(model: Clip, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Trained weights and the module's buffers, by open_clip's names."""
    if not weights:
        return {}  # of a rank that has none
    plain = merged(weights, model.low_rank_scale or 0.0)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in plain.items()}
    kept = model.towers.state_dict()
    for name, tensor in model.towers.named_buffers():
        if name in kept:  # running statistics of a ResNet
            is_float = tensor.is_floating_point()
            state[name] = tensor.detach().to("cpu", torch.float32 if is_float else None, copy=True)
    return state


def write_files(folder: Path, made: Contents, final: Path) -> None:
    """Write tensors, and what opens each file of weights beside it, to the disk.

    Args:
        folder: Where.
        made: What.
        final: The folder's name once it is whole.
    """
    for name, tensors in made.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        if path.name == WEIGHTS_NAME:
            place = (final / name).parent
            write_whole(path.with_name(CONFIG_NAME), config_bytes(made.config, place))
            write_beside(path.parent, made.beside)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        return {}
    with reading(path, "remove this checkpoint, and resume from the one before"):
        found = load_file(path)
    if broken := [n for n, t in found.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UserError(
            f"{path}: {broken[0]} holds numbers that are not finite; remove this checkpoint, and "
            "resume from the one before"
        )
    return found
