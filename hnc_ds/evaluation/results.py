"""Files of an evaluation: the rows of results.json, and the score of every single item.

    val.json           a JSON list of Result rows
    val.items.jsonl    a header, then one line per pair, image, question or answer

Items allow comparing two models item by item and showing their images. This module imports no
torch, so reports can read the files without it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import HELD_OUT
from hnc_ds.reading import LONGEST_LINE, decode_json, lines, read_bytes
from hnc_ds.records import Result
from hnc_ds.shards.format import DatasetIndex

FORMAT_VERSION = 1
AGAIN = "run 'hnc-ds evaluate' again"
HOW_TO_MAKE = "write it with 'hnc-ds evaluate --out'"

RowKey = tuple[str, str, str]
"""Benchmark, metric and group: unique among the rows of one model."""


class Interpolation(msgspec.Struct, frozen=True):
    """Endpoints and coefficient of an interpolated model ('hnc-ds interpolate')."""

    start: str
    """Name of the start model on the command line."""
    final: str
    coefficient: str
    """Weight of the final model, such as 0.3."""
    start_sha256: str
    """sha256 of weights and configuration."""
    final_sha256: str


class Coverage(msgspec.Struct, frozen=True):
    """Questions and images behind a score on a released benchmark, and their defects."""

    questions: int
    """Scored questions."""
    images: int
    captions: int
    """Distinct captions."""
    fingerprint: str
    """sha256 of the scored questions."""
    asked: str = ""
    """sha256 of all questions in the files, including those in `lost`."""
    lost: dict[str, int] = {}
    """Questions left out per group, because an image is missing or cannot be decoded."""
    missing: tuple[str, ...] = ()
    """Missing images, SOURCE/NAME."""
    unreadable: tuple[str, ...] = ()
    """Files that cannot be decoded."""
    too_long: int = 0
    """Captions cut at the model's context length."""
    identical: int = 0
    """Questions whose true and false captions are the same text."""


class ItemsHeader(msgspec.Struct, frozen=True, tag_field="item", tag="header"):
    """First line of an items file: the model and the data."""

    model: str
    shards: str = ""
    """Folder of the shards, relative to the folder of this file; empty without shards."""
    fingerprint: str = ""
    """sha256 of the shards' sha256s."""
    images: int = 0
    """Readable images of the shards."""
    captions: int = 0
    """Distinct captions of the shards."""
    too_long: int = 0
    """Captions of the shards cut at the model's context length."""
    unreadable: tuple[str, ...] = ()
    """Keys of the images that cannot be decoded and are left out."""
    seed: int = 0
    """Seed of the bootstrap."""
    interpolation: Interpolation | None = None
    sets: dict[str, Coverage] = {}
    """Coverage by name of the released benchmark."""
    folders: dict[str, tuple[str, ...]] = {}
    """Image folders by source."""
    ocr: str = ""
    """For TextVQA: the OCR tokens in the prompts, if any."""
    thresholds: dict[str, float] = {}
    """Scores from which on a caption counts as true, chosen on validation data, by metric."""
    format: int = FORMAT_VERSION


class PairItem(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="item", tag="pair"):
    """A positive and one of its hard negatives; scores are cosines."""

    image: int
    """Index of the image in the shards."""
    key: str
    statement: str
    """Type of the positive's caption group."""
    type: str
    """Type of the negative."""
    positive: str
    negative: str
    positive_score: float
    negative_score: float
    about: str = ""
    """Predicate or attribute class of the negative, see ``Negative.about``."""
    blind: float | None = None
    """Blind accuracy of the pair (blind.py), if it has a twin."""

    @property
    def margin(self) -> float:
        """Score of the positive minus score of the negative; 0 is a tie and counts as wrong."""
        return self.positive_score - self.negative_score


class RankItem(msgspec.Struct, frozen=True, tag_field="item", tag="ranks"):
    """Retrieval of one image: the rank of the first right answer in each direction, from 0."""

    image: int
    key: str
    caption: str
    image_to_text: int
    text_to_image: int


CLASS = "class"
"""The search of an image among classes."""


class AnsweredItem(msgspec.Struct, frozen=True, tag_field="item", tag="question"):
    """A question of a released benchmark with its scores."""

    benchmark: str
    id: str
    group: str
    images: tuple[str, ...]
    """SOURCE/NAME."""
    captions: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    """Cosines, one row per image."""
    right: dict[str, bool]
    """By metric."""
    tied: bool
    tags: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int] | None, ...] = ()
    """Crop of each image in pixels (left, top, right, bottom); None for the whole image."""
    blind: float | None = None
    """Blind accuracy of the question (blind.py), if it is a pair and has a twin."""
    ranks: dict[str, tuple[int, ...]] = {}
    """Wrong candidates before the first right one, by search: "image_to_text" has one rank,
    "text_to_image" one for each caption, "class" (zero-shot classification) one."""


class VqaItem(msgspec.Struct, frozen=True, tag_field="item", tag="vqa"):
    """A question with a free-form answer and its scores."""

    benchmark: str
    question_id: int | str
    image: str
    """Image id, or a label of its pair or group; items of one are resampled together."""
    image_file: str
    """File name in the folder `images` of the header; empty if unknown."""
    question: str
    answer: str
    people: tuple[str, ...]
    """Answers of the annotators, or the right one."""
    scores: dict[str, float]
    """By scorer, from 0 to 1; a scorer that does not apply is left out."""
    groups: tuple[str, ...] = ()
    """'answer type: number', 'question type: how many'."""


Item = PairItem | RankItem | AnsweredItem | VqaItem


@dataclass(frozen=True, slots=True)
class Measurement:
    """A results file and its items; header and items are empty if there is no items file."""

    rows: dict[RowKey, Result]
    folder: Path
    """Folder of the file; the header's shards are relative to it."""
    header: ItemsHeader | None
    pairs: list[PairItem] = field(default_factory=list)
    ranks: list[RankItem] = field(default_factory=list)
    answers: list[AnsweredItem] = field(default_factory=list)
    free_form: list[VqaItem] = field(default_factory=list)
    seeds: dict[str, "Measurement"] = field(default_factory=dict)
    """Measurements by seed, if it is known; the rows are the means over several. See seeds.py."""

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.pairs) + len(self.ranks) + len(self.answers) + len(self.free_form)


def key_of(result: Result) -> RowKey:
    """Benchmark, metric and group of a row."""
    return result.benchmark, result.metric, result.group


def items_path(results: Path) -> Path:
    """Path of the items file of a results file."""
    return results.with_suffix(".items.jsonl")


def fingerprint(index: DatasetIndex) -> str:
    """sha256 of the sha256s of the shards, in order: identifies the data behind a score."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in index.shards).encode()).hexdigest()


def fingerprints(header: ItemsHeader | None) -> dict[str, str]:
    """Fingerprint of the questions by benchmark, as far as the header records it."""
    if header is None:
        return {}
    sets = {name: coverage.fingerprint for name, coverage in header.sets.items()}
    return sets | (dict.fromkeys(HELD_OUT, header.fingerprint) if header.shards else {})


def write_results(
    out: Path, results: Sequence[Result], header: ItemsHeader, items: Iterable[Item]
) -> None:
    """Write the items, then the results, each atomically.

    Raises:
        UserError: The files cannot be written.
    """
    encode = msgspec.json.encode
    item_lines = (encode(line) + b"\n" for group in ((header,), items) for line in group)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(items_path(out), *item_lines)
        atomic_write(out, msgspec.json.format(encode(list(results)), indent=1), b"\n")


def read_measurement(path: Path) -> Measurement:
    """Read a results file and its items.

    Raises:
        UserError: As ``read_results`` and ``read_items``.
    """
    rows = rows_of(path)
    if not items_path(path).is_file():
        return Measurement(rows, path.parent, None)
    header, items = read_items(items_path(path))
    return Measurement(
        rows,
        path.parent,
        header,
        pairs=[item for item in items if isinstance(item, PairItem)],
        ranks=[item for item in items if isinstance(item, RankItem)],
        answers=[item for item in items if isinstance(item, AnsweredItem)],
        free_form=[item for item in items if isinstance(item, VqaItem)],
    )


def rows_of(path: Path) -> dict[RowKey, Result]:
    """Rows of a results file by key. Raises UserError as ``read_results``."""
    return {key_of(row): row for row in read_results(path)}


def read_results(path: Path) -> list[Result]:
    """Rows of a results file.

    Raises:
        UserError: The file is missing or not a list of result rows.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; {HOW_TO_MAKE}")
    content = read_bytes(path, HOW_TO_MAKE)
    return decode_json(content, list[Result], path, HOW_TO_MAKE, "not a list of result rows")


def read_header(path: Path) -> ItemsHeader:
    """The header of an items file. Raises UserError as `read_items`."""
    try:
        with path.open("rb") as file:
            return _read_header(file.readline(LONGEST_LINE), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error


def read_items(path: Path) -> tuple[ItemsHeader, list[Item]]:
    """Header and items of an items file.

    Raises:
        UserError: The file is missing, truncated, or of another format.
    """
    try:
        with path.open("rb") as file:
            header = _read_header(file.readline(LONGEST_LINE), path)
            return header, list(_read_lines(lines(file, path), path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error


def _read_header(line: bytes, path: Path) -> ItemsHeader:
    header = decode_json(line, ItemsHeader, f"{path}:1", AGAIN, "not a header of scores")
    if header.format != FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {header.format}, this version reads {FORMAT_VERSION}; "
            f"{AGAIN}"
        )
    return header


def _read_lines(file_lines: Iterable[bytes], path: Path) -> Iterator[Item]:
    for number, line in enumerate(file_lines, start=2):
        item: Item = decode_json(line, Item, f"{path}:{number}", AGAIN, "not an item")  # type: ignore[arg-type]
        yield item
