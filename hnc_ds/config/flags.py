"""Errors for unknown flags, in one line with the flag or key to use instead; help texts.

tyro's own error is a frame of several lines, with suggestions from other commands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

import tyro
from tyro import _strings as tyro_strings

from hnc_ds.config.help import install
from hnc_ds.errors import UserError, did_you_mean

IN_DEEPSPEEDS_JSON = {
    "opt": "optimizer.type",
    "optimizer": "optimizer.type",
    "beta1": "optimizer.params.betas",
    "beta2": "optimizer.params.betas",
    "betas": "optimizer.params.betas",
    "eps": "optimizer.params.eps",
    "lr-scheduler": "scheduler.type",
    "lr-scheduler-type": "scheduler.type",
    "accum-freq": "gradient_accumulation_steps",
    "gradient-accumulation-steps": "gradient_accumulation_steps",
    "grad-clip-norm": "gradient_clipping",
    "max-grad-norm": "gradient_clipping",
    "precision": "bf16.enabled or fp16.enabled",
    "amp": "bf16.enabled or fp16.enabled",
    "bf16": "bf16.enabled",
    "fp16": "fp16.enabled",
    "zero-stage": "zero_optimization.stage",
}
"""Flags of open_clip and Hugging Face, and the key of DeepSpeed's JSON that replaces each."""

OTHER_FLAGS = {
    "num-train-epochs": "--epochs",
    "learning-rate": "--lr",
    "wd": "--weight-decay",
    "warmup": "--warmup-steps",
    "batch": "--batch-size, of all GPUs together",
    "per-device-train-batch-size": "--batch-size, of all GPUs together",
    "max-steps": "--steps",
    "train-data": "--shards",
    "val-data": "--eval-shards",
    "logs": "--run",
    "name": "--run",
    "output-dir": "--run",
    "save-frequency": "--save-every, in steps",
    "save-steps": "--save-every",
    "eval-steps": "--eval-every",
    "logging-steps": "--log-every",
    "report-to": "--log-to",
    "resume-from-checkpoint": "--resume",
    "dataloader-num-workers": "--workers",
    "val-frequency": "--eval-every, in steps",
    "zeroshot-frequency": "--eval-every, in steps",
    "log-every-n-steps": "--log-every",
    "lock-image": "--towers text",
    "lock-text": "--towers image",
    "gradient-checkpointing": "--grad-checkpointing",
    "deepspeed": "--deepspeed-config",
    "temperature": "--tau",
}
"""Flags of open_clip and Hugging Face, and the flag of ``train`` that replaces each."""


def _joined(helptext: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in helptext.split("\n\n"))


# tyro 1.0 joins the lines of a help text, but not indented ones, as in docstrings of fields.
if hasattr(tyro_strings, "remove_single_line_breaks"):
    tyro_strings.remove_single_line_breaks = _joined
install()


EXCLUSIVE = ("steps", "epochs")
"""Flags of ``train`` of which one overrides what a run's config.json has of the other."""


def given_flags(arguments: Sequence[str]) -> list[str]:
    """The names of the flags among arguments, with dashes between words."""
    names = (argument.removeprefix("--").partition("=")[0] for argument in arguments)
    flags = zip(arguments, names, strict=True)
    return [name.replace("_", "-") for flag, name in flags if flag.startswith("--")]


def check_flags(settings: Any, arguments: Sequence[str], command: str = "") -> None:
    """Refuse unknown flags, and two that exclude each other.

    Args:
        settings: The dataclass that defines the command's flags.
        arguments: The arguments after the command's name.
        command: The command's name, for the error, where its line does not begin with it anyway.

    Raises:
        UserError: A flag is unknown; names its replacement, or the most similar flag. Or all of
            EXCLUSIVE are given.
    """
    known, of = flags_of(settings), f"{command}: " if command else ""
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("_", "-")
        if not argument.startswith("--") or not name or name == "help" or name in known:
            continue
        flag = argument.partition("=")[0]
        trains = "deepspeed-config" in known and "steps" in known
        if trains and name in IN_DEEPSPEEDS_JSON:
            key = IN_DEEPSPEEDS_JSON[name]
            raise UserError(f"{of}no flag {flag}; set {key}, in --deepspeed-config's JSON")
        if trains and name in OTHER_FLAGS:
            raise UserError(f"{of}no flag {flag}; use {OTHER_FLAGS[name]}")
        near = did_you_mean(name, known).replace(" '", " '--")
        raise UserError(f"{of}no flag {flag}{near or '; --help lists all flags'}")
    if set(EXCLUSIVE) <= set(given_flags(arguments)) & known:
        one, other = EXCLUSIVE
        raise UserError(f"{of}--{one} and --{other} both set the length of the run; give one")


@cache
def flags_of(settings: Any) -> frozenset[str]:
    """The names of a command's flags, without the leading dashes."""
    return frozenset(_flags_of(settings))


def _flags_of(settings: Any) -> Iterator[str]:
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        hint: Any = hints[field.name]
        of_markers = getattr(hint, "__metadata__", ())
        inner = getattr(hint, "__origin__", hint) if of_markers else hint
        if is_dataclass(inner):
            yield from _flags_of(inner)
        elif tyro.conf.Positional not in of_markers:
            name = field.name.replace("_", "-")
            yield from (name, f"no-{name}") if inner is bool else (name,)
