"""The --help of every command: flags under headings, values without None, no empty defaults.

tyro makes the text of a flag from its field, but has headings only for nested settings whose name
is part of their flags. Here its function that lays out flags gets the headings of ``Settings``.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hnc_ds.config.checks import Settings

HEADINGS = (
    *("positional arguments", "", "run", "model", "data", "objective", "optimizer"),
    *("evaluation", "checkpoint", "dry run", "input", "output", "process"),
)
"""The order of headings."""

COMMON = {
    "input": (
        *("captions", "scene_graphs", "images", "shards", "data", "questions", "annotations"),
        *("answers", "tables", "ocr", "split", "negative_columns", "negative_type", "model"),
        *("pretrained", "any_split", "allow_missing", "benchmarks", "into", "threshold_from"),
    ),
    "output": (
        *("out", "overwrite", "name", "hnc_json", "captions_out", "save", "save_to", "per_item"),
        *("samples_per_shard", "sheet", "table", "complete_with", "scenes"),
    ),
    "process": (
        *("workers", "part", "batch", "cache", "dtype", "cuda_graphs", "requests", "timeout"),
        *("retries", "endpoint", "ranks"),
    ),
}
"""Headings of fields that several commands have, for settings without headings of their own."""

MAX_COLUMNS = 129
"""Width of help at most: from 130 columns on tyro sets headings side by side, in another order."""

EMPTY_DEFAULTS = ("", "None", "''")


def heading_of(settings: Any, field: str) -> str:
    """The heading of a field; empty if it has none."""
    kind = getattr(settings, "__origin__", settings)  # of Annotated
    if not (isinstance(kind, type) and issubclass(kind, Settings)):
        return ""
    groups = kind.GROUPS if kind.GROUP else COMMON
    return next((name for name, own in groups.items() if field in own), kind.GROUP)


def value_of(metavar: str) -> str:
    """A flag's value as tyro writes it, without None, which is to leave the flag out, and without
    the braces that then have no meaning."""
    plain = metavar.replace("{None}|", "").replace("{None,", "{")
    return plain[1:-1] if plain != metavar and " " in plain and plain[0] == "{" else plain


def default_of(label: str) -> str:
    """The end of a help text, from the default as text."""
    if label in EMPTY_DEFAULTS:
        return ""
    short = re.sub(r"\d+\.\d{5,}", lambda found: f"{float(found[0]):.4g}", label)
    return f"(default: {short})"


def install() -> None:
    """Make tyro lay out flags in this way; a version of tyro with other internals keeps its own."""
    try:
        from tyro._backends import _tyro_help_formatting as layout
    except ImportError:
        return
    plain = layout.format_help

    def grouped(*, args: Sequence[Any], **others: Any) -> Any:
        return plain(args=sorted(map(_tidied, args), key=_place), **others)

    replaced = {
        "format_help": grouped,
        "shutil": SimpleNamespace(get_terminal_size=_one_column),
    }
    vars(layout).update(replaced)


def _one_column() -> os.terminal_size:
    columns, lines = shutil.get_terminal_size()
    return os.terminal_size((min(columns, MAX_COLUMNS), lines))


def _place(shown: Any) -> int:
    """Position of a flag's heading; headings that HEADINGS does not name are the last."""
    heading = shown.source_parser.extern_prefix
    if shown.arg.is_positional():
        heading = HEADINGS[0]
    return HEADINGS.index(heading) if heading in HEADINGS else len(HEADINGS)


def _tidied(shown: Any) -> Any:
    """A copy of tyro's record of a flag, whose heading is the prefix of its parser."""
    field = shown.arg.field
    hint = field.argconf.help_behavior_hint or default_of
    argument = replace(
        shown.arg, field=replace(field, argconf=replace(field.argconf, help_behavior_hint=hint))
    )
    lowered = argument.lowered
    lowered.metavar = lowered.metavar and value_of(lowered.metavar)
    heading = heading_of(shown.source_parser.f, field.intern_name)
    parser = replace(shown.source_parser, extern_prefix=heading, description="")
    return replace(shown, arg=argument, source_parser=parser)
