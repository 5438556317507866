"""Words as units: each word, or several that count as one, with a letter for its sort.

Phrases are then patterns of letters: Determiner, poSsessive, Count, Adjective, adveRb, Noun, naMe,
Verb, Wrought (past participle), Be, Have, Place, Join, clause (K), owner's mark (T), Fixed, Other.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.symmetric import COMPOUNDS, LISTS
from hnc_ds.captions.words.tagging import Word

_LETTERS = {
    tag: letter
    for letter, tags in {
        "D": "AT0 DT0",
        "S": "DPS",
        "C": "CRD ORD",
        "A": "AJ0 AJC AJS",
        "R": "AV0",
        "N": "NN0 NN1 NN2",
        "M": "NP0",
        "V": "VVG VVZ VVB VVI",
        "W": "VVN VVD",
        "B": "VBB VBD VBG VBI VBN VBZ",
        "H": "VHB VHD VHG VHI VHN VHZ",
        "P": "PRP PRF AVP",
        "J": "CJC",
        "K": "CJS CJT AVQ PNQ DTQ",
        "T": "POS",
    }.items()
    for tag in tags.split()
}

_MULTIWORD = {
    **{tuple(text.split()): "N" for text in sorted(COMPOUNDS)},
    **{tuple(text.split()): "D" for text in LISTS.quantities},
    **{tuple(text.split()): "P" for text in LISTS.places_of_several_words},
    **{tuple(text.split()): "F" for text in LISTS.fixed},
}
_LONGEST = max(map(len, _MULTIWORD))


class Span(NamedTuple):
    """Words start .. end - 1 of a sentence."""

    start: int
    end: int


class Unit(NamedTuple):
    """A word, or some that count as one, and its sort."""

    letter: str
    span: Span


def units_of(words: Sequence[Word]) -> list[Unit]:
    """The units of a sentence, in order."""
    texts = [word.text.lower() for word in words]
    units: list[Unit] = []
    start = 0
    while start < len(words):
        length, letter = _several(texts, start) or (1, _letter(words, start))
        units.append(Unit(letter, Span(start, start + length)))
        start += length
    return _with_joined_adjectives(texts, units)


def _several(texts: list[str], start: int) -> tuple[int, str] | None:
    for length in range(min(_LONGEST, len(texts) - start), 1, -1):
        if letter := _MULTIWORD.get(tuple(texts[start : start + length])):
            return length, letter
    return None


def _letter(words: Sequence[Word], index: int) -> str:
    word, text = words[index], words[index].text.lower()
    if text in LISTS.joining:
        return "J"
    if _is_colour(words, index):
        return "O"
    if not text[0].isalnum() and word.tag != "POS":
        return "O"  # a mark that the tagger takes for a noun
    return _LETTERS.get(word.tag, "O")


def _is_colour(words: Sequence[Word], index: int) -> bool:
    """The girl 'in white'; but 'an orange' is a thing."""
    if words[index].tag != "NN1":
        return False
    before = words[index - 1].tag if index else ""
    after = words[index + 1].tag if index + 1 < len(words) else ""
    alone = not before.startswith(("AT", "AJ", "DT", "DP", "NN")) and not after.startswith(
        ("NN", "AJ")
    )
    return alone and any(cls.name == "colour" for cls in classes_of(words[index].text.lower()))


def _with_joined_adjectives(texts: list[str], units: list[Unit]) -> list[Unit]:
    """'black and white' and 'light blue' as one adjective each, before a noun."""
    joined: list[Unit] = []
    for unit, following in zip(units, [*units[1:], None], strict=True):
        letters = "".join(u.letter for u in joined[-2:])
        if unit.letter == "A" and following and following.letter in "AN":
            if letters == "AJ" and texts[joined[-1].span.start] in ("and", "&"):
                joined[-2:] = [Unit("A", Span(joined[-2].span.start, unit.span.end))]
                continue
            if letters.endswith("A") and texts[joined[-1].span.start] in LISTS.light_or_dark:
                joined[-1] = Unit("A", Span(joined[-1].span.start, unit.span.end))
                continue
        joined.append(unit)
    return joined


def text_of(words: Sequence[Word], span: Span) -> str:
    """Words in small letters, with single spaces."""
    return " ".join(word.text.lower() for word in words[span.start : span.end])
