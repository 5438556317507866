"""Galleries: cards of pairs of shards with marked words, and of questions that runs answer unlike.

Images of pairs come from the shards of the items; without them, or if they have changed, the report
shows captions only, with a remark. Images of questions come from the folders in the header of the
items; missing images are counted.
"""

import base64
import difflib
import io
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import described
from hnc_ds.evaluation.paired import SharedItems, identity
from hnc_ds.evaluation.released.images import ImageFiles, read_image
from hnc_ds.evaluation.released.rules import ImageRef
from hnc_ds.evaluation.results import AnsweredItem, Measurement, PairItem, VqaItem, fingerprint
from hnc_ds.images import CorruptImage, as_rgb, check_box, open_image
from hnc_ds.report.runs import Run
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import is_url

T = TypeVar("T")

CARDS = 4
"""Pairs in a gallery."""
THUMBNAIL_PIXELS = 320
THUMBNAIL_QUALITY = 82

Words = list[tuple[str, bool]]
"""(piece of a caption, whether it differs from the other caption)."""


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one run for a card."""

    run: int
    true: str
    false: str
    right: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One pair or question with its images."""

    images: list[str]
    """data: URIs; empty for a missing image."""
    key: str
    type: str
    lines: list[tuple[str, Words]]
    """Captions by label: 'true' or 'false', or 'first' or 'second' of two."""
    scores: list[Score]
    heads: tuple[str, str] = ("true", "false")
    """Column heads of the scores."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cards chosen by one rule."""

    title: str
    about: str
    cards: list[Card]


def thumbnail(data: bytes, box: tuple[int, int, int, int] | None = None) -> str:
    """A small JPEG as data: URI, re-encoded so that only pixels reach the page; "" if it is
    damaged.

    Args:
        data: The encoded image.
        box: Crop in pixels; None for the whole image.
    """
    try:
        image = open_image(data)
        if box is None:
            image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        else:
            check_box(box)
        small = as_rgb(image)
    except CorruptImage:
        return ""
    if box is not None:
        small = small.crop(box)
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def mark_differences(caption: str, other: str) -> Words:
    """Split a caption into pieces that the other caption has and pieces that it lacks."""
    own, others = _tokens(caption), _tokens(other)
    pieces: Words = []
    matcher = difflib.SequenceMatcher(None, own, others, autojunk=False)
    for operation, first, last, _, _ in matcher.get_opcodes():
        if first < last:
            pieces.append(("".join(own[first:last]), operation != "equal"))
    return _without_gaps(pieces)


def _tokens(caption: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", caption)


def _without_gaps(pieces: Words) -> Words:
    """Also mark spaces between marked pieces, and join adjacent pieces of one kind."""
    joined: Words = []
    for index, (text, marked) in enumerate(pieces):
        between = 0 < index < len(pieces) - 1 and text.isspace() and pieces[index + 1][1]
        if joined and joined[-1][1] == (marked or between):
            joined[-1] = (joined[-1][0] + text, joined[-1][1])
        else:
            joined.append((text, marked))
    return joined


class Images:
    """Thumbnails from the shards of a measurement; ``remark`` is the reason if there are none."""

    def __init__(self, measurement: Measurement) -> None:
        self._reader: ShardReader | None = None
        self.remark = ""
        header = measurement.header
        if header is None or not header.shards:
            return
        if is_url(header.shards):
            self.remark = f"Images are missing: the shards are remote, at {header.shards}."
            return
        try:
            reader = ShardReader(measurement.folder / header.shards)
        except UserError as error:
            self.remark = f"Images are missing: {error}."
            return
        if fingerprint(reader.index) != header.fingerprint:
            self.remark = f"Images are missing: {reader.folder} has changed since."
            return
        self._reader = reader

    def of(self, pair: PairItem) -> str:
        """Thumbnail of a pair's image as data: URI; empty if it is missing."""
        if self._reader is None:
            return ""
        try:
            return thumbnail(self._reader.image_bytes(pair.image))
        except (UserError, IndexError) as error:
            self.remark = f"An image is missing: {error}."
            return ""


class Curator:
    """Chooses pairs of one results file for cards with the scores of every run."""

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        self._runs = runs
        self._measurements = [run.measurements.get(name) for run in runs]
        self._images = [Images(m) if m else None for m in self._measurements]
        self._scored = [{identity(p): p for p in m.pairs} if m else {} for m in self._measurements]

    def remarks(self) -> list[str]:
        """Reasons why images are missing."""
        return list(dict.fromkeys(p.remark for p in self._images if p and p.remark))

    def extremes(self, run: int) -> list[Gallery]:
        """Pairs with the lowest and the highest margins of a run."""
        measurement = self._measurements[run]
        if measurement is None or not measurement.pairs:
            return []
        name = self._runs[run].name
        ordered = sorted(measurement.pairs, key=lambda pair: (pair.margin, identity(pair)))
        return [
            Gallery(
                f"{name}: lowest margins",
                "The hard negative beats the true caption by most; one pair per image.",
                self._cards(run, _extreme(ordered)),
            ),
            Gallery(
                f"{name}: highest margins",
                "The true caption beats the hard negative by most; one pair per image.",
                self._cards(run, _extreme(reversed(ordered))),
            ),
        ]

    def changes(self, run: int, shared: SharedItems) -> list[Gallery]:
        """Pairs that are right in this run and wrong in the first, and the reverse."""
        both = list(zip(shared.first_pairs, shared.second_pairs, strict=True))
        first, name = self._runs[0].name, self._runs[run].name
        fixed = [(a, b) for a, b in both if a.margin <= 0 < b.margin]
        broken = [(a, b) for a, b in both if b.margin <= 0 < a.margin]
        return [
            Gallery(
                title,
                f"{about} {len(found):,} of {len(both):,} pairs; these changed most.",
                self._cards(run, _chosen(_by_change(found), lambda p: p.type, lambda p: p.key)),
            )
            for title, about, found in (
                (f"Fixed by {name}", f"Wrong in {first}, right in {name}:", fixed),
                (f"Broken by {name}", f"Right in {first}, wrong in {name}:", broken),
            )
            if both
        ]

    def _cards(self, run: int, pairs: Iterable[PairItem]) -> list[Card]:
        images = self._images[run]
        return [
            Card(
                images=[images.of(pair) if images else ""],
                key=pair.key,
                type=pair.type.replace("_", " "),
                lines=[
                    ("true", mark_differences(pair.positive, pair.negative)),
                    ("false", mark_differences(pair.negative, pair.positive)),
                ],
                scores=self._scores(pair),
            )
            for pair in pairs
        ]

    def _scores(self, pair: PairItem) -> list[Score]:
        return [
            Score(run, f"{p.positive_score:.3f}", f"{p.negative_score:.3f}", p.margin > 0)
            for run, scored in enumerate(self._scored)
            if (p := scored.get(identity(pair))) is not None
        ]


def _by_change(pairs: list[tuple[PairItem, PairItem]]) -> list[PairItem]:
    """Pairs of the second run, by descending change of margin."""

    def largest_first(pair: tuple[PairItem, PairItem]) -> tuple[float, tuple[str, ...]]:
        first, second = pair
        return -abs(second.margin - first.margin), identity(second)

    return [second for _, second in sorted(pairs, key=largest_first)]


def _chosen(
    found: Iterable[T], group: Callable[[T], Hashable], image: Callable[[T], str]
) -> list[T]:
    """The first of each group, then the second of each, ..., one per image."""
    seen: Counter[Hashable] = Counter()
    ranked: list[tuple[int, int, T]] = []
    for one in found:
        ranked.append((seen[group(one)], len(ranked), one))
        seen[group(one)] += 1
    chosen: dict[str, T] = {}
    for _, _, one in sorted(ranked, key=lambda entry: entry[:2]):
        chosen.setdefault(image(one), one)
    return list(chosen.values())[:CARDS]


def _extreme(pairs: Iterable[PairItem]) -> list[PairItem]:
    return _chosen(pairs, lambda pair: None, lambda pair: pair.key)


Both = tuple[AnsweredItem, AnsweredItem]
"""A question of the first run and of another."""

BothFreeForm = tuple[VqaItem, VqaItem]
Box = tuple[int, int, int, int]

IMAGES = "images"
"""Source of images in results of 'hnc-ds score'."""


class QuestionCurator:
    """Chooses questions of one results file for cards.

    Args:
        runs: All runs of the page.
        name: Name of the results file.
    """

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        self._runs = runs
        measurements = [run.measurements.get(name) for run in runs]
        self._files = [_files(m) for m in measurements]
        self._answered = [{_identity(i): i for i in m.answers} if m else {} for m in measurements]
        self._missing: dict[str, None] = {}

    def remarks(self) -> list[str]:
        """Number of missing images."""
        if not self._missing:
            return []
        number, first = len(self._missing), next(iter(self._missing))
        images = "image of the evaluation is" if number == 1 else "images of the evaluation are"
        return [f"{number:,} {images} missing, such as {first}."]

    def changes(self, run: int, shared: SharedItems) -> list[Gallery]:
        """For each benchmark, questions that are right in this run and wrong in the first, and the
        reverse."""
        found = []
        for benchmark in dict.fromkeys(one.benchmark for one, _ in shared.answers):
            both = [pair for pair in shared.answers if pair[0].benchmark == benchmark]
            if both[0][0].right:
                found += self._of_benchmark(benchmark, run, both)
        return [*found, *self._free_form(run, shared.free_form)]

    def _of_benchmark(self, benchmark: str, run: int, both: Sequence[Both]) -> list[Gallery]:
        first, name = self._runs[0].name, self._runs[run].name
        title = described(benchmark).title
        fixed = [(a, b) for a, b in both if not _right(a) and _right(b)]
        broken = [(a, b) for a, b in both if _right(a) and not _right(b)]
        return [
            Gallery(
                f"{title}: {how} by {name}",
                f"{about} {len(chosen):,} of {len(both):,} questions; one per group in turn.",
                [self._card(run, pair[1], wrong=pair[place]) for pair in _changed_most(chosen)],
            )
            for how, about, chosen, place in (
                ("fixed", f"Wrong in {first}, right in {name}:", fixed, 0),
                ("broken", f"Right in {first}, wrong in {name}:", broken, 1),
            )
        ]

    def _free_form(self, run: int, both: Sequence[BothFreeForm]) -> list[Gallery]:
        """Free-form answers that are better or worse than in the first run."""
        first, name = self._runs[0].name, self._runs[run].name
        better = [(a, b) for a, b in both if _score_of(b) > _score_of(a)]
        worse = [(a, b) for a, b in both if _score_of(b) < _score_of(a)]
        return [
            Gallery(
                f"Answers {how} in {name}",
                f"Compared with {first}: {len(chosen):,} of {len(both):,} questions; largest "
                "changes first, one per type in turn.",
                [self._answer_card(run, pair) for pair in _answers_changed_most(chosen)],
            )
            for how, chosen in (("better", better), ("worse", worse))
            if both
        ]

    def _answer_card(self, run: int, both: BothFreeForm) -> Card:
        one, other = both
        people = max(sorted(set(other.people)), key=other.people.count)
        return Card(
            images=[self._found(run, ImageRef(IMAGES, other.image_file), None)],
            key=str(other.question_id),
            type=", ".join(other.groups[:1]),
            lines=[("asked", [(other.question, False)]), ("true", [(people, False)])],
            scores=[_answer_score(0, one), _answer_score(run, other)],
            heads=("answer", "score"),
        )

    def _card(self, run: int, item: AnsweredItem, wrong: AnsweredItem) -> Card:
        two, false = _is_two_by_two(item), _best_false(wrong)
        return Card(
            images=[self._image(run, item, place) for place in range(len(item.images))],
            key=item.id,
            type=item.group.replace("_", " "),
            lines=_two_lines(item) if two else _lines(item, false),
            scores=[
                _score(number, own, false)
                for number, answered in enumerate(self._answered)
                if (own := answered.get(_identity(item))) is not None
            ],
            heads=("image", "text") if two else ("true", "false"),
        )

    def _image(self, run: int, item: AnsweredItem, place: int) -> str:
        source, _, name = item.images[place].partition("/")
        return self._found(run, ImageRef(source, name), item.boxes[place] if item.boxes else None)

    def _found(self, run: int, image: ImageRef, box: Box | None) -> str:
        for files in (self._files[run], self._files[0]):
            try:
                path = files.find(image)
                if path is not None:
                    return thumbnail(read_image(path, image), box)
            except (OSError, ValueError, UserError, CorruptImage):
                continue
        self._missing[image.title] = None
        return ""


def _score_of(item: VqaItem) -> float:
    """Score by the first scorer, the official one of VQA v2.0."""
    return next(iter(item.scores.values()))


def _answer_score(run: int, item: VqaItem) -> Score:
    return Score(run, item.answer or "(nothing)", f"{_score_of(item):.2f}", _score_of(item) > 0)


def _files(measurement: Measurement | None) -> ImageFiles:
    header = measurement.header if measurement else None
    folders = header.folders if header else {}
    return ImageFiles({source: tuple(map(Path, own)) for source, own in folders.items()})


def _identity(item: AnsweredItem) -> tuple[str, str, tuple[str, ...]]:
    return item.benchmark, item.id, item.captions


def _right(item: AnsweredItem) -> bool:
    """Correctness by the metric `group` for two images, else by the first metric."""
    return item.right.get("group", next(iter(item.right.values())))


def _is_two_by_two(item: AnsweredItem) -> bool:
    """Whether a question has two images with a caption each."""
    return len(item.images) == len(item.captions) == 2


def _cosines(item: AnsweredItem) -> Sequence[float]:
    """Of an image with the captions, or of the only caption with the images."""
    return item.scores[0] if len(item.images) == 1 else [row[0] for row in item.scores]


def _lead(item: AnsweredItem) -> float:
    """Lead of the right answer; for two images with a caption each, the least of the four leads."""
    if _is_two_by_two(item):
        return min(_leads(item))
    true, false = _true_and_false(item)
    row = _cosines(item)
    return min(row[place] for place in true) - max((row[place] for place in false), default=0.0)


def _leads(item: AnsweredItem) -> tuple[float, float]:
    """For two images: the least lead of an image's caption, and of a caption's image."""
    (own_0, other_0), (other_1, own_1) = item.scores
    return min(own_0 - other_0, own_1 - other_1), min(own_0 - other_1, own_1 - other_0)


def _true_and_false(item: AnsweredItem) -> tuple[range, range]:
    """Positions of the true captions or image, which come first (two in SugarCrepe++), and of the
    false ones."""
    first_false = 2 if "itt" in item.right else 1
    return range(first_false), range(first_false, len(_cosines(item)))


def _best_false(item: AnsweredItem) -> int | None:
    """Position of the false caption or image that is the most similar; None if there is none."""
    _, false = _true_and_false(item)
    return max(false, key=_cosines(item).__getitem__, default=None)


def _lines(item: AnsweredItem, false: int | None) -> list[tuple[str, Words]]:
    """The true captions and one false caption."""
    true, _ = _true_and_false(item)
    if false is None or len(item.captions) == 1:
        return [("true", [(item.captions[place], False)]) for place in true]
    other = item.captions[false]
    lines = [("true", mark_differences(item.captions[place], other)) for place in true]
    return [*lines, ("false", mark_differences(other, item.captions[0]))]


def _two_lines(item: AnsweredItem) -> list[tuple[str, Words]]:
    one, other = item.captions
    return [("first", mark_differences(one, other)), ("second", mark_differences(other, one))]


def _score(run: int, item: AnsweredItem, false: int | None) -> Score:
    """Least leads for two images with a caption each; else cosines, the lower one of two true
    captions."""
    if _is_two_by_two(item):
        by_image, by_text = _leads(item)
        return Score(run, f"{by_image:+.3f}", f"{by_text:+.3f}", _right(item))
    row, (true, _) = _cosines(item), _true_and_false(item)
    lowest = min(row[place] for place in true)
    return Score(run, f"{lowest:.3f}", "" if false is None else f"{row[false]:.3f}", _right(item))


def _changed_most(pairs: Iterable[Both]) -> list[Both]:
    """Questions with the largest changes, one per group in turn."""
    ordered = sorted(pairs, key=lambda both: (-abs(_lead(both[1]) - _lead(both[0])), both[0].id))
    return _chosen(ordered, lambda both: both[0].group, lambda both: both[0].images[0])


def _answers_changed_most(pairs: Iterable[BothFreeForm]) -> list[BothFreeForm]:
    """Free-form answers with the largest changes, one per type in turn."""

    def largest_first(both: BothFreeForm) -> tuple[float, bool, int | str]:
        number = both[0].question_id
        # Numbers of one benchmark and names of another do not compare.
        return -abs(_score_of(both[1]) - _score_of(both[0])), isinstance(number, str), number

    ordered = sorted(pairs, key=largest_first)
    return _chosen(ordered, lambda both: both[0].groups, lambda both: both[0].image)
