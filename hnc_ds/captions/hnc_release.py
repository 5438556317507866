"""Stream the released HNC files: 8 GB in one line of JSON, in two layouts.

    {"2386621": {"captions": {"17": {caption, label, type, replaced, cpt_p_id, ...}, ...}}, ...}
    {"n100552.jpg": {"0": {caption, label, type, replaced}, ...}, ...}      (human-written test set)

In the first a negative names its positive in ``cpt_p_id``; in the second captions 2k and 2k + 1
are a pair. Pairs that the release is known to get wrong are left out, counted and told; nothing
is repaired here.

Source: Doenmez et al. 2023 (HNC), doi:10.18419/darus-4341.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import ijson
import msgspec

from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

MISLABELLED_TYPE = "obj_comp_count"
"""By their own stored boxes 45 % of its positives are false and 17 % of its negatives true."""

MINIMAL_WORDS = 4
"""Most words that the texts of a minimal pair exchange, as 'is' for 'to the left of'."""

READ_BYTES = 1 << 20


class _Record(msgspec.Struct):
    """One caption of the release; its other fields are not used."""

    caption: str
    label: Literal[0, 1]
    type: str
    replaced: Any = None
    cpt_p_id: int | str | None = None


_Pair = tuple[_Record, _Record]


def read_release(file: BinaryIO, path: Path) -> Iterator[ImageCaptions]:
    """The images of a released HNC file, with or without the ``captions`` level.

    Image ids lose their '.jpg'. Positives of one text are one group. When the file ends, a line
    says how many pairs were left out and why.

    Args:
        file: Open on the (unzipped) JSON.
        path: For messages.

    Raises:
        UserError: Broken or truncated JSON, or not HNC's layout; names the image.
    """
    tally: Counter[str] = Counter()
    for name, content in _items(file, path):
        records = _records(content, f"{path}: image {name}")
        yield ImageCaptions(name.removesuffix(".jpg"), _groups(records, tally))
    print(_told(path, tally))


def _items(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    """(image name, its object) of the top level; one image in memory at a time."""
    place = "at the start"
    try:
        for name, content in ijson.kvitems(file, "", buf_size=READ_BYTES, use_float=True):
            yield name, content
            place = f"after image {name}"
    except ijson.JSONError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: {place}: truncated or broken JSON ({reason}); copy it again"
        ) from error


def _records(content: Any, where: str) -> dict[str, _Record]:
    if isinstance(content, dict) and isinstance(content.get("captions"), dict):
        content = content["captions"]
    try:
        return msgspec.convert(content, dict[str, _Record])
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: not captions in HNC's layout ({error})") from error


def _groups(records: dict[str, _Record], tally: Counter[str]) -> tuple[CaptionGroup, ...]:
    """The caption groups of an image, in the order in which their positives are first paired."""
    true_texts = {
        _plain(record.caption)
        for record in records.values()
        if record.label == 1 and record.type != MISLABELLED_TYPE
    }
    positives: dict[str, _Record] = {}
    negatives: dict[str, dict[str, Negative]] = {}
    for positive, negative in _pairs(records, tally):
        tally["pairs"] += 1
        right, wrong = _plain(positive.caption), _plain(negative.caption)
        if MISLABELLED_TYPE in (positive.type, negative.type):
            tally[f"{MISLABELLED_TYPE}, which the release labels wrongly"] += 1
        elif fault := _fault(right, wrong, true_texts):
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
    """Captions 2k (true) and 2k + 1 (false) of the same type; by number, for gaps may occur."""
    for name, record in records.items():
        if record.label == 1:
            continue
        positive = records.get(str(int(name) - 1)) if name.isdecimal() and int(name) % 2 else None
        if positive is None or positive.label != 1 or positive.type != record.type:
            tally["without a partner"] += 1
            continue
        if _words_exchanged(positive.caption, record.caption) > MINIMAL_WORDS:
            tally["not minimal"] += 1
        yield positive, record


def _fault(right: str, wrong: str, true_texts: set[str]) -> str | None:
    """Why the texts of a pair cannot be a true and a false caption."""
    if not right or not wrong:
        return "empty text"
    if right == wrong:
        return "same text twice"
    if wrong in true_texts:
        return "negative is a true caption of the image"
    return None


def _plain(text: str) -> str:
    """What makes two texts the same: case, spacing and the final stop do not count."""
    return " ".join(text.casefold().rstrip(" .").split())


def _words_exchanged(one: str, other: str) -> int:
    """Words of one text that the other lacks, whichever side has more of them."""
    ours, theirs = Counter(_plain(one).split()), Counter(_plain(other).split())
    return max((ours - theirs).total(), (theirs - ours).total())


def _two_strings(replaced: Any) -> tuple[str, str] | None:
    match replaced:
        case [str() as before, str() as after]:
            return before, after
    return None


def _told(path: Path, tally: Counter[str]) -> str:
    pairs, loose = tally.pop("pairs", 0), tally.pop("not minimal", 0)
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.items()) if count)
    kept = f"; kept {loose} that differ in more than {MINIMAL_WORDS} words" if loose else ""
    return f"{path}: {pairs} pairs of captions; left out: {left_out or 'none'}{kept}"
