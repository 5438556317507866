"""A run's folder: its settings and its checkpoints.

    runs/NAME/config.json
    runs/NAME/checkpoints/step-000500/{model.safetensors, open_clip_config.json,
                                       optimizer.safetensors, state.json}
                                      /adapters.safetensors     LoRA adapters, before merging
                                      /tokenizer.json ... text_tower/config.json    Hugging Face
                                      text /average/{model.safetensors, open_clip_config.json}

A checkpoint is written under another name, flushed to disk and renamed, so it is complete or
absent. Weights and moments are whole fp32 tensors by open_clip's names: no pickle, any number of
ranks. open_clip loads a checkpoint folder, and average/ in it, as ``local-dir:FOLDER``.
"""

import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hnc_ds.atomic_files import atomic_folder, atomic_write, writing
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.model.clip import Clip
from hnc_ds.model.hugging_face import config_bytes, is_clip_folder, write_beside
from hnc_ds.model.load import CONFIG_NAME, WEIGHTS_NAME, load_folder
from hnc_ds.model.scope import is_change, merged
from hnc_ds.reading import read_json, reading

if TYPE_CHECKING:
    from hnc_ds.model.cross_encoder import CrossEncoder

Settings = TypeVar("Settings")


def to_json(settings: Any) -> dict[str, Any]:
    """The fields of a settings object as JSON values, by name, nested like the object."""
    return {name: _json_value(value) for name, value in asdict(settings).items()}


def updated(settings: Settings, values: dict[str, Any], where: str) -> Settings:
    """A copy of the settings with values in the form of ``to_json``.

    Args:
        settings: A dataclass of config/.
        values: By field name; other fields are unchanged.
        where: File and place of the values, for errors.

    Raises:
        UserError: An unknown name, a value of another type, or one that the settings refuse.
    """
    merged = _merged(settings, values, where)
    try:
        return msgspec.convert(merged, type(settings), dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).replace("`", "").partition(" - at $")
        raise UserError(f"{where}{place}: {problem[0].lower()}{problem[1:]}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _merged(settings: Any, values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be an object of settings by name")
    merged = to_json(settings)
    for name, value in values.items():
        if name not in merged:
            raise UserError(f"{where}: unknown setting '{name}'{did_you_mean(name, merged)}")
        current = getattr(settings, name)
        nested = is_dataclass(current)
        merged[name] = _merged(current, value, f"{where}.{name}") if nested else value
    return merged


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_json_value(part) for part in value]
    return str(value) if isinstance(value, Path) else value


MOMENTS_NAME = "optimizer.safetensors"
ADAPTERS_NAME = "adapters.safetensors"
AVERAGES_NAME = "averages.safetensors"
CONTINUED_FROM = (WEIGHTS_NAME, MOMENTS_NAME, ADAPTERS_NAME, AVERAGES_NAME)
"""Files that a run resumes from."""
AVERAGE_NAME = "average"
"""Folder of the averaged model in a checkpoint."""
STATE_NAME = "state.json"
SETTINGS_NAME = "config.json"
STEP = re.compile(r"step-[0-9]+")
PREFIX = "towers."
"""Our parameter names are this and open_clip's."""


class Checkpoint(NamedTuple):
    """A checkpoint in memory. Tensors are whole, by our parameter names."""

    step: int
    folder: Path
    weights: dict[str, torch.Tensor]
    """With LoRA, the merged matrices under their plain names, and the adapters."""
    moments: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    scalars: dict[str, Any]


class CheckpointFiles(NamedTuple):
    """Content of a checkpoint, in CPU memory that nothing else uses."""

    files: dict[str, dict[str, torch.Tensor]]
    """Tensors by the file's name in the checkpoint."""
    config: dict[str, Any] | None
    """open_clip_config.json; None for a model of transformers, whose files are ``beside``."""
    scalars: Mapping[str, Any]
    beside: Mapping[str, bytes]
    """Files in the folder of each file of weights: tokenizer and configuration of a Hugging Face
    text tower, or of a model of transformers."""


def next_free_run(root: Path = Path("runs")) -> Path:
    """runs/train-001, or the next free number."""
    number = 1
    while (folder := root / f"train-{number:03d}").exists():
        number += 1
    return folder


def refuse_existing(run: Path, resume: bool) -> None:
    """Raise UserError if the folder exists and is not to be resumed."""
    if run.exists() and not resume:
        raise UserError(f"{run}: exists; choose another --run, or add --resume to continue it")


def start_run(run: Path, settings: Mapping[str, Any]) -> None:
    """Create the folder of a run, if needed, and write its settings.

    Raises:
        UserError: It cannot be written.
    """
    with writing(run):
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        atomic_write(run / SETTINGS_NAME, json.dumps(settings, indent=2, sort_keys=True).encode())


def read_settings(run: Path) -> dict[str, Any]:
    """A run's config.json.

    Raises:
        UserError: No such run, or its config.json is damaged.
    """
    if not (run / SETTINGS_NAME).exists():
        raise UserError(f"{run}: not a run folder, it has no {SETTINGS_NAME}")
    return read_settings_file(run / SETTINGS_NAME)


def read_settings_file(path: Path) -> dict[str, Any]:
    """The content of a run's config.json, under whatever name.

    Raises:
        UserError: No such file, or it is damaged.
    """
    settings = read_json(path, "it is written when a run starts", "not JSON")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not the settings of a run")
    return settings


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoint folders, oldest first."""
    return [folder for folder in _checkpoints(run) if flaw_of(folder) is None]


def step_of(checkpoint: Path) -> int:
    """Step of a checkpoint, from its folder's name."""
    return int(checkpoint.name.removeprefix("step-"))


class _State(msgspec.Struct):
    """state.json."""

    step: int
    files: dict[str, int]
    """Size of every file, in bytes."""
    crc32: dict[str, int] = {}
    """Checksum of every file; empty in old checkpoints."""
    scalars: dict[str, Any] = {}


def flaw_of(checkpoint: Path, read: Collection[str] = ()) -> str | None:
    """What is missing or damaged in a checkpoint; None if it is complete: state.json exists, and
    every file has the size that it records.

    Args:
        checkpoint: Its folder.
        read: Names of files that will be read; their checksums are compared as well.
    """
    if not (checkpoint / STATE_NAME).exists():
        return f"{STATE_NAME} is missing, so writing did not finish"
    try:
        state = msgspec.convert(read_json(checkpoint / STATE_NAME), _State)
    except (UserError, msgspec.ValidationError) as error:
        return f"{STATE_NAME} is damaged ({error})"
    number = checkpoint.name.removeprefix("step-")  # a copy may have any name
    if (number.isdecimal() and int(number) != state.step) or WEIGHTS_NAME not in state.files:
        return f"{STATE_NAME} is not that of this checkpoint"
    flaws = (_flaw_of_file(checkpoint, name, size) for name, size in state.files.items())
    if flaw := next((flaw for flaw in flaws if flaw), None):
        return flaw
    sums = ((name, crc32) for name, crc32 in state.crc32.items() if name in read)
    changed = (name for name, crc32 in sums if _crc32_of(checkpoint / name) != crc32)
    return next((f"{name} has another checksum than when it was written" for name in changed), None)


def latest(run: Path, read: Collection[str]) -> Path | None:
    """The newest complete checkpoint. Prints to stderr which one, and why newer ones are skipped.

    Args:
        run: Folder of the run.
        read: As in ``flaw_of``.

    Returns:
        None if the run has no checkpoint folder at all.

    Raises:
        UserError: There are checkpoints, but none is complete.
    """
    left_out: list[str] = []
    for folder in reversed(_checkpoints(run)):
        flaw = flaw_of(folder, read)
        if flaw is None:
            _report(run, folder, left_out)
            return folder
        left_out.append(f"{folder.name} is skipped: {flaw}")
    if left_out:
        raise UserError(
            f"{run}: no checkpoint is complete ({left_out[0]}); put the file back, or remove "
            f"{run / 'checkpoints'} to start over"
        )
    return None


def newest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run, as ``latest`` returns it.

    Raises:
        UserError: No such run, or it has no complete checkpoint.
    """
    read_settings(run)
    found = latest(run, (WEIGHTS_NAME,))
    if found is None:
        raise UserError(f"{run}: has no complete checkpoint yet; train it first")
    return found


def _checkpoints(run: Path) -> list[Path]:
    """All of a run's checkpoint folders by step."""
    found = [path for path in (run / "checkpoints").glob("step-*") if STEP.fullmatch(path.name)]
    return sorted(found, key=step_of)


def _report(run: Path, taken: Path, left_out: list[str]) -> None:
    if rank() == 0:
        message = "; ".join([*left_out, f"using {taken.name}"])
        print(f"{run}: {message}", file=sys.stderr, flush=True)


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
    model: "Clip | CrossEncoder",
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    averages: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> CheckpointFiles:
    """Collect a checkpoint's content, so that it can be written while training continues.

    Args:
        model: For its configuration and buffers.
        weights: Whole parameters by our names.
        moments: Whole optimizer state by ``NAME/KEY``.
        averages: Moving averages of the trained parameters by our names; empty without --ema.
        scalars: JSON values of the engine.
    """
    files = {WEIGHTS_NAME: _open_clip_state(model, weights), MOMENTS_NAME: dict(moments)}
    if changes := {name: tensor for name, tensor in weights.items() if is_change(name)}:
        files[ADAPTERS_NAME] = changes
    if averages:
        files[f"{AVERAGE_NAME}/{WEIGHTS_NAME}"] = _open_clip_state(model, {**weights, **averages})
        files[AVERAGES_NAME] = dict(averages)
    return CheckpointFiles(files, model.config, scalars, model.text_files())


def write(
    run: Path, step: int, content: CheckpointFiles, keep_last: int, best: int | None = None
) -> Path:
    """Write a checkpoint and delete the oldest beyond ``keep_last``. On one rank.

    Args:
        run: Folder of the run.
        step: Steps done.
        content: What to write.
        keep_last: How many of the newest checkpoints to keep.
        best: Step of another checkpoint to keep.

    Returns:
        Its folder.

    Raises:
        UserError: The disk is full or cannot be written; earlier checkpoints are unchanged.
    """
    final = checkpoint_folder(run, step)
    kept = complete_checkpoints(run)
    complete = f"{kept[-1].name} is complete" if kept else "no earlier checkpoint exists"
    with (
        writing(final, f"start again with --resume, {complete}", errors=(OSError, SafetensorError)),
        atomic_folder(final) as partial,  # complete ones are never written twice
    ):
        write_files(partial, content, final)
        paths = sorted(path for path in partial.rglob("*") if path.is_file())
        names = [path.relative_to(partial).as_posix() for path in paths]
        state = _State(
            step,
            {name: path.stat().st_size for name, path in zip(names, paths, strict=True)},
            {name: _crc32_of(path) for name, path in zip(names, paths, strict=True)},
            dict(content.scalars),
        )
        atomic_write(
            partial / STATE_NAME, json.dumps(msgspec.to_builtins(state), indent=2).encode()
        )
    for old in complete_checkpoints(run)[:-keep_last]:
        if best is None or old != checkpoint_folder(run, best):
            shutil.rmtree(old)
    return final


def checkpoint_folder(run: Path, step: int) -> Path:
    """Folder of the checkpoint of a step, which may not exist yet."""
    return run / "checkpoints" / f"step-{step:06d}"


def read(checkpoint: Path) -> Checkpoint:
    """Read a checkpoint to resume from.

    Raises:
        UserError: It is not complete.
    """
    if flaw := flaw_of(checkpoint):
        raise UserError(f"{checkpoint}: not a complete checkpoint; {flaw}")
    state = read_json(checkpoint / STATE_NAME)
    plain = _read_tensors(checkpoint / WEIGHTS_NAME)
    return Checkpoint(
        state["step"],
        checkpoint,
        {f"{PREFIX}{name}": tensor for name, tensor in plain.items()}
        | _read_tensors(checkpoint / ADAPTERS_NAME),
        _read_tensors(checkpoint / MOMENTS_NAME),
        _read_tensors(checkpoint / AVERAGES_NAME),
        state.get("scalars", {}),
    )


def load_saved(clip: Clip, saved: Checkpoint) -> None:
    """Copy the weights of a checkpoint into a model; other weights are unchanged."""
    with torch.no_grad():
        for name, tensor in (*clip.named_parameters(), *clip.named_buffers()):
            if name in saved.weights:
                tensor.copy_(saved.weights[name])


def trained_kind(path: Path) -> str | None:
    """model_type of the image-text matching model of a run or of a checkpoint; None for other
    models and other folders."""
    if (path / "checkpoints").is_dir():
        folders = complete_checkpoints(path)
        return trained_kind(folders[-1]) if folders else None
    if not ((path / STATE_NAME).is_file() and is_clip_folder(path)):
        return None
    found = read_json(path / SETTINGS_NAME).get("model_type")
    return None if found == "clip" else found


def load_trained(path: Path, device: torch.device) -> Clip:
    """The model of a run (its newest checkpoint) or of one checkpoint folder, for evaluation.

    Raises:
        UserError: The folder is neither.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a run or a checkpoint")
    if (path / SETTINGS_NAME).is_file() and not is_clip_folder(path):
        return load_folder(newest_checkpoint(path)).to(device)
    if (path / STATE_NAME).is_file() and (flaw := flaw_of(path, (WEIGHTS_NAME,))):
        raise UserError(f"{path}: not a complete checkpoint; {flaw}")
    return load_folder(path).to(device)


def _open_clip_state(
    model: "Clip | CrossEncoder", weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Trained weights and the module's buffers, by the names of open_clip or transformers."""
    if not weights:
        return {}  # a rank other than 0
    plain = merged(weights, model.low_rank_scale or 0.0)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in plain.items()}
    for name in () if isinstance(model, Clip) else model.scalars:
        state[name] = state[name].view(())
    kept = model.towers.state_dict()
    for name, tensor in model.towers.named_buffers():
        if name in kept:  # running statistics of a ResNet
            is_float = tensor.is_floating_point()
            state[name] = tensor.detach().to("cpu", torch.float32 if is_float else None, copy=True)
    return state


def write_files(folder: Path, content: CheckpointFiles, final: Path) -> None:
    """Write tensors, and with each file of weights the files that open_clip needs to load it.

    Args:
        folder: Where to write.
        content: What to write.
        final: The folder's name after it is renamed.
    """
    for name, tensors in content.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        # transformers opens no file that does not say that it is torch's.
        form = {"format": "pt"} if content.config is None else None
        path.touch()
        mode = path.stat().st_mode  # safetensors' own file is for its owner alone
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, form)
        path.chmod(mode)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        if path.name == WEIGHTS_NAME:
            place = (final / name).parent
            if content.config is not None:
                atomic_write(path.with_name(CONFIG_NAME), config_bytes(content.config, place))
            write_beside(path.parent, content.beside)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        return {}
    with reading(path, "remove this checkpoint, and resume from the previous one"):
        found = load_file(path)
    if broken := [n for n, t in found.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UserError(
            f"{path}: {broken[0]} has values that are not finite; remove this checkpoint, and "
            "resume from the previous one"
        )
    return found
