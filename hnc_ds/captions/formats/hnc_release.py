"""Stream the released HNC files: 8 GB in one line of JSON, in two layouts.

    {"2386621": {"captions": {"17": {caption, label, type, replaced, cpt_p_id, ...}, ...}}, ...}
    {"n100552.jpg": {"0": {caption, label, type, replaced}, ...}, ...}      (human-written test set)

In the first layout a negative refers to its positive in ``cpt_p_id``; in the second, captions 2k
and 2k + 1 are a pair. Pairs that are wrong by their own texts and boxes are left out and counted;
comparisons that become right by swapping two captions or two nouns are corrected.

Source: Doenmez et al. 2023 (HNC), doi:10.18419/darus-4341.
"""

import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from hnc_ds.captions.formats.json_members import members_of
from hnc_ds.captions.language.nouns import is_plural, plural, shows_number, singular
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import decode_json
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

COMPARISON = "obj_comp_count"
"""Checked against the boxes: the release has 'fewer' with swapped nouns, so 45 % of the positives
are false and 17 % of the negatives true."""

COUNT = "obj_count"
"""Some negatives have a singular noun after a plural number: 'There are four tree.'"""

MINIMAL_WORDS = 4
"""Maximum number of words that differ in a minimal pair, as 'is' and 'to the left of'."""

CORRECTED = f"{COMPARISON} corrected by their boxes"

_START = re.compile(rb'\s*\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:\s*\{)')
"""{"2386621": {...; a line of captions.jsonl starts {"image_id": "..."""

_COMPARED = re.compile(r"there are (as many|more|fewer) (.+) (?:as|than) (.+)")
_COMPARE = {"as many": operator.eq, "more": operator.gt, "fewer": operator.lt}
_FEWER = re.compile(r"(there are fewer )(.+)( than )([^.]*\w)", re.IGNORECASE)
_COUNTED = re.compile(r"there are \S+ (.+)")


class _Record(msgspec.Struct):
    """One caption of the release; other fields are not used."""

    caption: str
    label: Literal[0, 1]
    type: str
    replaced: Any = None
    cpt_p_id: int | str | None = None
    bboxes: Any = None


class _Box(msgspec.Struct):
    """A boxed object; only its name is used."""

    name: str


_Pair = tuple[_Record, _Record]


def is_release(start: bytes) -> bool:
    """Whether a file with this start is a released file, and not captions.jsonl.

    Args:
        start: Enough bytes for white space and one image id.
    """
    return _START.match(start) is not None


def read_release(file: BinaryIO, path: Path) -> Iterator[ImageCaptions]:
    """The images of a released HNC file, with or without the ``captions`` level.

    Image ids lose their '.jpg'. Positives of equal text form one group. Prints a summary of what
    was left out, and why, at the end.

    Args:
        file: The (unzipped) JSON.
        path: For messages.

    Raises:
        UserError: Broken or truncated JSON, or another layout; names the image.
    """
    tally: Counter[str] = Counter()
    for name, content in _items(file, path):
        records = _records(content, f"{path}: image {name}")
        yield ImageCaptions(name.removesuffix(".jpg"), _groups(records, tally))
    print(_summary(path, tally))


def _items(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    """(image name, its value) of the top level; one image in memory at a time."""
    seen: set[str] = set()
    for member in members_of(file, path):
        where = f"{path}: image {member.key}"
        if member.key in seen:
            raise UserError(f"{where} occurs twice; copy the file again")
        seen.add(member.key)
        yield member.key, decode_json(member.value, object, where)


def _records(content: Any, where: str) -> dict[str, _Record]:
    if isinstance(content, dict) and isinstance(content.get("captions"), dict):
        content = content["captions"]
    try:
        return msgspec.convert(content, dict[str, _Record])
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: not captions in HNC's layout ({error})") from error


def _groups(records: dict[str, _Record], tally: Counter[str]) -> tuple[CaptionGroup, ...]:
    """The caption groups of an image, in the order of the first pairs of their positives."""
    true_texts = {
        _plain(record.caption)
        for record in records.values()
        if record.label == 1 and record.type != COMPARISON
    }
    positives: dict[str, _Record] = {}
    negatives: dict[str, dict[str, Negative]] = {}
    for positive, negative in _checked(_pairs(records, tally), tally):
        right, wrong = _plain(positive.caption), _plain(negative.caption)
        if fault := _fault(right, wrong, true_texts):
            tally[fault] += 1
        elif wrong in negatives.setdefault(right, {}):
            tally["said before"] += 1
        else:
            positives.setdefault(right, positive)
            negatives[right][wrong] = Negative(
                negative.caption.strip(), negative.type, _two_strings(negative.replaced)
            )
    tally["true captions left without a negative"] += len(true_texts - positives.keys())
    return tuple(
        CaptionGroup(positive.caption.strip(), positive.type, tuple(negatives[key].values()))
        for key, positive in positives.items()
    )


def _pairs(records: dict[str, _Record], tally: Counter[str]) -> Iterable[_Pair]:
    if any(record.cpt_p_id is not None for record in records.values()):
        return _pairs_by_id(records, tally)
    return _pairs_of_neighbours(records, tally)


def _pairs_by_id(records: dict[str, _Record], tally: Counter[str]) -> Iterator[_Pair]:
    for record in records.values():
        if record.label == 1:
            continue
        positive = records.get(str(record.cpt_p_id))
        if positive is None or positive.label != 1:
            tally["without a partner"] += 1
        else:
            yield positive, record


def _pairs_of_neighbours(records: dict[str, _Record], tally: Counter[str]) -> Iterator[_Pair]:
    """Captions 2k (true) and 2k + 1 (false) of the same type; by number, as there may be gaps."""
    for name, record in records.items():
        if record.label == 1:
            continue
        positive = records.get(str(int(name) - 1)) if name.isdecimal() and int(name) % 2 else None
        if positive is None or positive.label != 1 or positive.type != record.type:
            tally["without a partner"] += 1
            continue
        if _words_that_differ(positive.caption, record.caption) > MINIMAL_WORDS:
            tally["not minimal"] += 1
        yield positive, record


def _checked(pairs: Iterable[_Pair], tally: Counter[str]) -> Iterator[_Pair]:
    """The pairs whose numbers are right, as far as the pairs themselves show."""
    for pair in pairs:
        tally["pairs"] += 1
        types = {record.type for record in pair}
        if COMPARISON in types:
            checked = _checked_comparison(*pair)
            if isinstance(checked, str):
                tally[f"{COMPARISON} {checked}"] += 1
                continue
            tally[CORRECTED] += checked != pair
            yield checked
        elif COUNT in types and _number_clashes(*(_plain(record.caption) for record in pair)):
            tally[f"{COUNT} with a singular noun after a plural number"] += 1
        else:
            yield pair


def _checked_comparison(positive: _Record, negative: _Record) -> _Pair | str:
    """The pair, true caption first, checked by its boxes; else the reason to leave it out.

    Wrong comparisons with "fewer" are corrected. If they were left out, "fewer" would occur in
    false captions only and reveal the label.
    """
    names = _names_of_boxes(positive, negative)
    match _comparison_holds(positive.caption, names), _comparison_holds(negative.caption, names):
        case True, False:
            return positive, negative
        case False, True:
            return _with_labels_swapped(positive, negative)
        case (None, _) | (_, None):
            return "whose boxes do not show what they count"
    corrected = _with_nouns_swapped(positive), _with_nouns_swapped(negative)
    if [_comparison_holds(record.caption, names) for record in corrected] == [True, False]:
        return corrected
    return "that no exchange makes true and false by their boxes"


def _with_nouns_swapped(record: _Record) -> _Record:
    """The caption with the nouns of "fewer" swapped."""
    caption = _FEWER.sub(r"\1\4\3\2", record.caption)
    return msgspec.structs.replace(record, caption=caption)


def _names_of_boxes(*records: _Record) -> list[str]:
    """The name of each boxed object in the records; empty if a box has no name."""
    boxes: dict[str, Any] = {}
    for record in records:
        if isinstance(record.bboxes, dict):
            boxes |= record.bboxes
    try:
        return [_plain(box.name) for box in msgspec.convert(boxes, dict[str, _Box]).values()]
    except msgspec.ValidationError:
        return []


def _comparison_holds(caption: str, names: list[str]) -> bool | None:
    """Whether a comparison is true of objects of these names; None if unknown."""
    match = _COMPARED.fullmatch(_plain(caption))
    if match is None:
        return None
    comparator, one, other = match.groups()
    count, other_count = _count(one, names), _count(other, names)
    if count is None or other_count is None:
        return None
    return bool(_COMPARE[comparator](count, other_count))


def _count(noun: str, names: list[str]) -> int | None:
    """Number of names that a noun matches; None if none, or if one of them is a plural."""
    meant = [name for name in names if plural(name) == noun or singular(name) == singular(noun)]
    if not meant or any(is_plural(name) for name in meant):
        return None
    return len(meant)


def _with_labels_swapped(positive: _Record, negative: _Record) -> _Pair:
    words = _two_strings(negative.replaced)
    return (
        _Record(negative.caption, 1, negative.type),
        _Record(positive.caption, 0, positive.type, words and words[::-1]),
    )


def _number_clashes(right: str, wrong: str) -> bool:
    """Whether one of the texts has a singular noun after a plural number."""
    nouns = {match[1] for text in (right, wrong) if (match := _COUNTED.fullmatch(text))}
    if len(nouns) > len({singular(noun) for noun in nouns}):
        return True  # 'three buses' and 'four bus'
    # The number of a lone noun in s is ambiguous: 'bus', 'broccolis'.
    return any(
        not is_plural(noun) and shows_number(noun) and not noun.endswith("s") for noun in nouns
    )


def _fault(right: str, wrong: str, true_texts: set[str]) -> str | None:
    """The reason why two texts cannot be a true and a false caption; None if they can."""
    if not right or not wrong:
        return "empty text"
    if right == wrong:
        return "same text twice"
    if wrong in true_texts:
        return "negative is a true caption of the image"
    return None


def _plain(text: str) -> str:
    """A text without differences of case, spacing and final full stop."""
    return " ".join(text.casefold().rstrip(" .").split())


def _words_that_differ(one: str, other: str) -> int:
    """Number of words that one text has and the other lacks; the larger of both directions."""
    ours, theirs = Counter(_plain(one).split()), Counter(_plain(other).split())
    return max((ours - theirs).total(), (theirs - ours).total())


def _two_strings(replaced: Any) -> tuple[str, str] | None:
    match replaced:
        case [str() as before, str() as after]:
            return before, after
    return None


def _summary(path: Path, tally: Counter[str]) -> str:
    pairs, loose = tally.pop("pairs", 0), tally.pop("not minimal", 0)
    corrected = tally.pop(CORRECTED, 0)
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.items()) if count)
    kept = f"; kept {loose} that differ in more than {MINIMAL_WORDS} words" if loose else ""
    repaired = f"; repaired: {corrected} {CORRECTED}" if corrected else ""
    of_pairs = f"{counted(pairs, 'pair')} of captions"
    return f"{path}: {of_pairs}; left out: {left_out or 'none'}{kept}{repaired}"
