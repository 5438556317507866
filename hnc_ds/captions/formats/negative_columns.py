"""Columns of negatives in tables and JSON of others: which they are, of which type, what they hold.

A cell holds one caption, or a list of them as Python or JSON writes lists: NegCLIP's and CREPE's
do. Nothing of a cell is ever evaluated but plain strings.
"""

import ast
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from hnc_ds.errors import UserError

KNOWN = {
    "neg_caption": "negclip",
    "neg_captions": "negclip",
    "hard_negs": "crepe",
    "valid_hard_negs_atom": "crepe_atom",
    "valid_hard_negs_comp": "crepe_comp",
    "negative_caption": "negative",
    "negative_captions": "negative",
    "negative": "negative",
    "negatives": "negative",
    "hard_negative": "negative",
    "hard_negatives": "negative",
    "hard_negative_captions": "negative",
    "false_caption": "negative",
    "foil": "foil",
    "relation_aug_caption": "relation_aug",
    "adj_aug_caption": "adj_aug",
    "noun_aug_caption": "noun_aug",
    "verb_aug_caption": "verb_aug",
}
"""Columns that are negatives without being named, and their type: those of NegCLIP and FSC-CLIP, of
CREPE, of SugarCrepe and others, of CE-CLIP."""

UNUSED = {"neg_image": "cells of neg_image, which are not used"}
"""Columns that are left aside, and how that is counted."""

_NAME = re.compile(r"[\w.+-]{1,64}")
_OPENS = re.compile(r"\[\s*['\"]")
_TEXT = re.compile(r"""\s*((?:'(?:[^'\\]|\\.)*')|(?:"(?:[^"\\]|\\.)*"))\s*(,|\]\s*\Z)""", re.DOTALL)


class NegativeColumns(NamedTuple):
    """Which columns are negatives, as the user has it; without names those of KNOWN."""

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """One for each name, or one for all; without types those of KNOWN, or the columns' names."""

    def check(self) -> None:
        """Refuse types that are no names, or not as many as columns.

        Raises:
            UserError: They are.
        """
        for name in self.types:
            if not _NAME.fullmatch(name):
                raise UserError(
                    f"negative_type '{name}': give letters, digits, '_', '-', '.' or '+'"
                )
        if len(self.types) > 1 and len(self.types) != len(self.names):
            raise UserError(
                f"negative_type names {len(self.types)} types for {len(self.names)} "
                "--negative_columns; give one for all, or one for each"
            )

    def among(self, columns: Collection[str]) -> dict[str, str]:
        """Type by column, of those that are there."""
        there = [name for name in self.names or KNOWN if name in columns]
        return {name: self._type(name) for name in there}

    def _type(self, name: str) -> str:
        if len(self.types) > 1:
            return self.types[self.names.index(name)]
        return self.types[0] if self.types else KNOWN.get(name, name)


def texts_of(value: Any) -> list[str]:
    """The captions of a cell, or of a value of JSON; none of an empty one.

    Raises:
        ValueError: It is neither text nor a list of texts, or a list that is broken.
    """
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    if value is None:
        return []
    if not isinstance(value, str):
        raise ValueError("neither text nor a list of texts")
    cell = value.strip()
    if cell == "[]" or not cell:
        return []
    return list(_listed(cell)) if _OPENS.match(cell) else [value]


def _listed(cell: str) -> Iterator[str]:
    """The strings of a list that Python or JSON has written."""
    at, end = 1, ","
    while end == ",":
        if cell[at : at + 9].strip() == "]":  # a comma behind the last one
            return
        found = _TEXT.match(cell, at)
        if found is None:
            raise ValueError(
                f"a list that breaks off or is no list of texts at '{cell[at : at + 40]}'"
            )
        yield _text(found[1])
        at, end = found.end(), found[2]


def _text(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal.replace("\n", "\\n").replace("\r", "\\r")))
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"no text: {literal[:40]}") from error
