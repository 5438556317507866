"""Errors for wrong flags, in one line with the flag or key to use instead; help texts.

tyro's own error is a frame of several lines, with suggestions from other commands.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

import tyro
from tyro import _strings as tyro_strings

from hnc_ds.config.help import install, value_of
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


@contextmanager
def one_line_errors(arguments: Sequence[str], command: str = "") -> Iterator[None]:
    """Raise what tyro refuses as UserError. Versions of tyro without this hook print a frame.

    Args:
        arguments: The arguments that tyro parses.
        command: As in ``check_flags``.

    Raises:
        UserError: A required flag or value is missing, a value is of another kind or not among the
            choices, or there is a word that no flag takes.
    """
    try:
        from tyro import _errors as tyro_errors
    except ImportError:
        yield
        return

    def refuse(event: Any) -> None:
        line = _refusal(event, arguments)
        if line:
            raise UserError(f"{command}: {line}" if command else line)

    with tyro_errors.on_parse_error(refuse):
        yield


def _refusal(event: Any, arguments: Sequence[str]) -> str:
    """What tyro refuses, in a line; empty for events of other versions."""
    match type(event).__name__:
        case "MissingArgs":
            names = [_name_of(one.arg) for one in event.missing_arguments]
            be = "is" if len(names) == 1 else "are"
            return f"{' and '.join(names)} {be} missing; --help lists all flags"
        case "MissingSubcommand":
            return "no command; 'hnc-ds --help' lists them"
        case "BadValue" if event.reason == "too_few_values":
            return f"{_name_of(event.argument)} needs a value"
        case "InvalidChoice":
            near = did_you_mean(event.value, event.choices)
            or_one = near or f"; give one of {', '.join(event.choices)}"
            return f"{_name_of(event.argument)} cannot be '{event.value}'{or_one}"
        case "UnrecognizedArgs":
            words = " ".join(event.tokens)
            return f"no flag takes '{words}'; quote a value that has spaces"
        case "InstantiationFailure" if event.argument is not None:
            name = _name_of(event.argument)
            takes = value_of(event.argument.lowered.metavar)
            return f"{name} cannot be '{value_in(arguments, name)}'; it takes {takes}"
    return ""


def value_in(arguments: Sequence[str], flag: str) -> str:
    """The words after the last place of a flag, up to the next flag."""
    found, inside = list[str](), False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            inside = name.replace("_", "-") == flag
            found = ([value] if equals else []) if inside else found
        elif inside:
            found.append(argument)
    return " ".join(found)


def _name_of(argument: Any) -> str:
    """A flag as it is typed, or the name of a positional argument."""
    if argument.is_positional():
        return str(argument.lowered.metavar)
    return str(max(argument.lowered.name_or_flags, key=len))


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
