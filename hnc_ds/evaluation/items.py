"""What stands behind every score: results.json and, beside it, the scores of single items.

    val.json           a JSON list of Result rows
    val.items.jsonl    a header, then one line per pair and one per image with its ranks

The items let two models be compared pair by pair and their pictures be shown. No torch here:
reports read these files without it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.reading import LONGEST_LINE, decode_json, lines, read_bytes
from hnc_ds.records import Result
from hnc_ds.shards.format import DatasetIndex
from hnc_ds.whole_files import write_whole, writing

FORMAT_VERSION = 1
AGAIN = "run 'hnc-ds evaluate' again"


class Mixture(msgspec.Struct, frozen=True):
    """Which two models a measured model was mixed of ('hnc-ds interpolate')."""

    start: str
    """As the user named it."""
    final: str
    share: str
    """How much of the final one: 0.3."""
    start_sha256: str
    """Of weights and configuration."""
    final_sha256: str


class Coverage(msgspec.Struct, frozen=True):
    """Of what a score on a released benchmark is, and what is wrong with it."""

    questions: int
    """That were scored."""
    images: int
    captions: int
    """Distinct ones that were encoded."""
    fingerprint: str
    """sha256 over the questions: equal where two models were asked the same."""
    asked: str = ""
    """The same over all that were read, those that are lost too."""
    lost: dict[str, int] = {}
    """Questions by group of which a picture is missing or cannot be decoded."""
    missing: tuple[str, ...] = ()
    """Pictures that are not there, SOURCE/NAME."""
    unreadable: tuple[str, ...] = ()
    """Files that cannot be decoded."""
    too_long: int = 0
    """Captions that did not fit into the model's context and were cut."""
    identical: int = 0
    """Questions whose true and false caption are one text."""


class ItemsHeader(msgspec.Struct, frozen=True, tag_field="item", tag="header"):
    """First line: which model was measured on what."""

    model: str
    shards: str = ""
    """Folder of the shards, relative to the folder of this file; nothing without any."""
    fingerprint: str = ""
    """sha256 over the shards' own sha256s: equal where two models saw the same data."""
    images: int = 0
    """Of the shards."""
    captions: int = 0
    """Distinct captions of the shards that were encoded."""
    too_long: int = 0
    """Captions that did not fit into the model's context and were cut."""
    unreadable: tuple[str, ...] = ()
    """Keys of the images that could not be decoded and are in no score."""
    seed: int = 0
    """Of the bootstrap intervals."""
    mixture: Mixture | None = None
    sets: dict[str, Coverage] = {}
    """By name of a released benchmark."""
    folders: dict[str, tuple[str, ...]] = {}
    """Of the benchmarks' pictures, by source."""
    ocr: str = ""
    """Of answers to TextVQA: whether they were asked with the words that were read."""
    format: int = FORMAT_VERSION


class PairItem(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="item", tag="pair"):
    """One hard negative beside its positive; scores are cosines."""

    image: int
    """Index of the image in the shards."""
    key: str
    statement: str
    """What the positive says: its group's type."""
    type: str
    """How the negative was made false."""
    positive: str
    negative: str
    positive_score: float
    negative_score: float
    about: str = ""
    """What the negative turns on, see ``Negative.about``."""

    @property
    def margin(self) -> float:
        """How much more similar the positive is; 0 is a tie, which counts as wrong."""
        return self.positive_score - self.negative_score


class RankItem(msgspec.Struct, frozen=True, tag_field="item", tag="ranks"):
    """One image's retrieval: how many wrong answers came before the first right one."""

    image: int
    key: str
    caption: str
    image_to_text: int
    text_to_image: int


class AnsweredItem(msgspec.Struct, frozen=True, tag_field="item", tag="question"):
    """One question of a released benchmark, and what became of it."""

    benchmark: str
    id: str
    group: str
    images: tuple[str, ...]
    """SOURCE/NAME."""
    captions: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    """Cosines, a row for each image."""
    right: dict[str, bool]
    """By metric."""
    tied: bool
    tags: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int] | None, ...] = ()
    """What of each image was shown, in pixels: left, top, right, bottom; all of it where None."""


class VqaItem(msgspec.Struct, frozen=True, tag_field="item", tag="vqa"):
    """A question that was answered in words, and what the answer is worth."""

    benchmark: str
    question_id: int
    image: str
    """Id of its picture."""
    picture: str
    """File name of its picture, in the folder `images` of the header; empty where not known."""
    question: str
    answer: str
    people: tuple[str, ...]
    scores: dict[str, float]
    """By scorer, from 0 to 1."""
    groups: tuple[str, ...] = ()
    """'answer type: number', 'question type: how many'."""


Item = PairItem | RankItem | AnsweredItem | VqaItem


def items_path(results: Path) -> Path:
    """The file of items that belongs to a results.json."""
    return results.with_suffix(".items.jsonl")


def fingerprint(index: DatasetIndex) -> str:
    """sha256 over the sha256s of the shards, in order: names the data a score is of."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in index.shards).encode()).hexdigest()


def write_results(
    out: Path, results: Sequence[Result], header: ItemsHeader, items: Iterable[Item]
) -> None:
    """Write the items and, last, the results: a results.json that exists is whole.

    Raises:
        UserError: The files cannot be written.
    """
    encode = msgspec.json.encode
    lines = (encode(line) + b"\n" for group in ((header,), items) for line in group)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(items_path(out), *lines)
        write_whole(out, msgspec.json.format(encode(list(results)), indent=1), b"\n")


def read_results(path: Path) -> list[Result]:
    """The rows of a results.json.

    Raises:
        UserError: Missing, or not a list of result rows.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; make it with 'hnc-ds evaluate --out'")
    again = "make it with 'hnc-ds evaluate --out'"
    return decode_json(
        read_bytes(path, again), list[Result], path, again, "not a list of result rows"
    )


def read_header(path: Path) -> ItemsHeader:
    """The header of an items.jsonl. Raises UserError as `read_items` does."""
    try:
        with path.open("rb") as file:
            return _read_header(file.readline(LONGEST_LINE), path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run 'hnc-ds evaluate' again"
        ) from error


def read_items(path: Path) -> tuple[ItemsHeader, list[Item]]:
    """Header and items of an items.jsonl.

    Raises:
        UserError: Missing, torn, or of another format.
    """
    try:
        with path.open("rb") as file:
            return _read_header(file.readline(LONGEST_LINE), path), list(
                _read_lines(lines(file, path), path)
            )
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run 'hnc-ds evaluate' again"
        ) from error


def _read_header(line: bytes, path: Path) -> ItemsHeader:
    header = decode_json(line, ItemsHeader, f"{path}:1", AGAIN, "not a header of scores")
    if header.format != FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {header.format}, this version reads {FORMAT_VERSION}; "
            "run 'hnc-ds evaluate' again"
        )
    return header


def _read_lines(file_lines: Iterable[bytes], path: Path) -> Iterator[Item]:
    for number, line in enumerate(file_lines, start=2):
        found: Item = decode_json(line, Item, f"{path}:{number}", AGAIN, "not an item")  # type: ignore[arg-type]
        yield found
