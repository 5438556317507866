"""Questions of released benchmarks that one run answers and another does not, with their pictures.

Pictures come from the folders that the items' header names; what is not there any more is told.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.image_files import ImageFiles, read_picture
from hnc_ds.evaluation.items import AnsweredItem, VqaItem
from hnc_ds.evaluation.measurement import Measurement
from hnc_ds.evaluation.paired import SharedItems
from hnc_ds.evaluation.question import ImageRef
from hnc_ds.evaluation.question_sets import described
from hnc_ds.images import CorruptImage
from hnc_ds.report.cards import CARDS, Card, Gallery, Score, Words, mark_differences, thumbnail
from hnc_ds.report.runs import Run

Both = tuple[AnsweredItem, AnsweredItem]
"""A question as the first run answered it and as another did."""

BothInWords = tuple[VqaItem, VqaItem]
Box = tuple[int, int, int, int]

IMAGES = "images"
"""What 'hnc-ds score' calls the folder of pictures."""


class QuestionCurator:
    """Chooses questions of one results file and makes cards of them.

    Args:
        runs: All of the page.
        name: Of the results file.
    """

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        self._runs = runs
        measurements = [run.measurements.get(name) for run in runs]
        self._files = [_files(m) for m in measurements]
        self._answered = [_by_identity(m) for m in measurements]
        self._missing: dict[str, None] = {}

    def remarks(self) -> list[str]:
        """How many pictures are missing."""
        if not self._missing:
            return []
        number, first = len(self._missing), next(iter(self._missing))
        pictures = "picture" if number == 1 else "pictures"
        return [f"Missing {number:,} {pictures} where the evaluation found them, such as {first}."]

    def changes(self, run: int, shared: SharedItems) -> list[Gallery]:
        """For each benchmark the questions that this run gets right and the first did not, and the
        reverse."""
        found = []
        for benchmark in dict.fromkeys(one.benchmark for one, _ in shared.answers):
            both = [pair for pair in shared.answers if pair[0].benchmark == benchmark]
            if both[0][0].right:
                found += self._of_benchmark(benchmark, run, both)
        return [*found, *self._in_words(run, shared.in_words)]

    def _of_benchmark(self, benchmark: str, run: int, both: Sequence[Both]) -> list[Gallery]:
        first, name = self._runs[0].name, self._runs[run].name
        known = described(benchmark)
        title = known.title if known else benchmark
        fixed = [(a, b) for a, b in both if not _right(a) and _right(b)]
        broken = [(a, b) for a, b in both if _right(a) and not _right(b)]
        return [
            Gallery(
                f"{title}: {how} by {name}",
                f"{about} {len(chosen):,} of {len(both):,} questions; one of each group in turn.",
                [self._card(run, pair[1], wrong=pair[place]) for pair in _spread(chosen)],
            )
            for how, about, chosen, place in (
                ("fixed", f"Wrong in {first}, right in {name}:", fixed, 0),
                ("broken", f"Right in {first}, wrong in {name}:", broken, 1),
            )
        ]

    def _in_words(self, run: int, both: Sequence[BothInWords]) -> list[Gallery]:
        """Questions whose answers in words became better, and those that became worse."""
        first, name = self._runs[0].name, self._runs[run].name
        better = [(a, b) for a, b in both if _worth(b) > _worth(a)]
        worse = [(a, b) for a, b in both if _worth(b) < _worth(a)]
        return [
            Gallery(
                f"Answers {how} in {name}",
                f"Than in {first}: {len(chosen):,} of {len(both):,} questions; those that changed "
                "most, one of each kind in turn.",
                [self._answer_card(run, pair) for pair in _spread_in_words(chosen)],
            )
            for how, chosen in (("better", better), ("worse", worse))
            if both
        ]

    def _answer_card(self, run: int, both: BothInWords) -> Card:
        one, other = both
        people = max(sorted(set(other.people)), key=other.people.count)
        return Card(
            pictures=[self._found(run, ImageRef(IMAGES, other.picture), None)],
            key=str(other.question_id),
            type=", ".join(other.groups[:1]),
            lines=[("asked", [(other.question, False)]), ("true", [(people, False)])],
            scores=[_words_score(0, one), _words_score(run, other)],
            heads=("answer", "score"),
        )

    def _card(self, run: int, item: AnsweredItem, wrong: AnsweredItem) -> Card:
        two, false = len(item.images) == 2, _best_false(wrong)
        return Card(
            pictures=[self._picture(run, item, place) for place in range(len(item.images))],
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

    def _picture(self, run: int, item: AnsweredItem, place: int) -> str:
        source, _, name = item.images[place].partition("/")
        return self._found(run, ImageRef(source, name), item.boxes[place] if item.boxes else None)

    def _found(self, run: int, image: ImageRef, box: Box | None) -> str:
        for files in (self._files[run], self._files[0]):
            try:
                path = files.find(image)
                if path is not None:
                    return thumbnail(read_picture(path, image), box)
            except (OSError, ValueError, UserError, CorruptImage):
                continue
        self._missing[image.title] = None
        return ""


def _worth(item: VqaItem) -> float:
    """By the first scorer, which is the official one of VQA v2.0."""
    return next(iter(item.scores.values()))


def _spread_in_words(pairs: Iterable[BothInWords]) -> list[BothInWords]:
    """One of each kind in turn, no two of a picture, those first that changed most."""

    def largest_first(pair: BothInWords) -> tuple[float, int]:
        return -abs(_worth(pair[1]) - _worth(pair[0])), pair[0].question_id

    seen: Counter[tuple[str, ...]] = Counter()
    ranked: list[tuple[int, int, BothInWords]] = []
    for pair in sorted(pairs, key=largest_first):
        ranked.append((seen[pair[0].groups], len(ranked), pair))
        seen[pair[0].groups] += 1
    chosen: dict[str, BothInWords] = {}
    for _, _, pair in sorted(ranked, key=lambda entry: entry[:2]):
        chosen.setdefault(pair[0].image, pair)
    return list(chosen.values())[:CARDS]


def _words_score(run: int, item: VqaItem) -> Score:
    return Score(run, item.answer or "(nothing)", f"{_worth(item):.2f}", _worth(item) > 0)


def _files(measurement: Measurement | None) -> ImageFiles:
    header = measurement.header if measurement else None
    folders = header.folders if header else {}
    return ImageFiles({source: tuple(map(Path, own)) for source, own in folders.items()})


def _identity(item: AnsweredItem) -> tuple[str, str, tuple[str, ...]]:
    return item.benchmark, item.id, item.captions


def _by_identity(
    measurement: Measurement | None,
) -> dict[tuple[str, str, tuple[str, ...]], AnsweredItem]:
    return {_identity(item): item for item in measurement.answers} if measurement else {}


def _right(item: AnsweredItem) -> bool:
    """By the metric that the images' scores tell: of two images both ways, else the first."""
    return item.right.get("group", next(iter(item.right.values())))


def _spread(pairs: Iterable[Both]) -> list[Both]:
    """One of each group in turn, no two of a picture, those first that changed most."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, Both]] = []
    for pair in sorted(pairs, key=lambda pair: (-abs(_lead(pair[1]) - _lead(pair[0])), pair[0].id)):
        ranked.append((seen[pair[0].group], len(ranked), pair))
        seen[pair[0].group] += 1
    chosen: dict[str, Both] = {}
    for _, _, pair in sorted(ranked, key=lambda entry: entry[:2]):
        chosen.setdefault(pair[0].images[0], pair)
    return list(chosen.values())[:CARDS]


def _lead(item: AnsweredItem) -> float:
    """By how much the right answer is ahead; of two images the least of four leads."""
    if len(item.images) == 2:
        return min(_leads(item))
    true, false = _true_and_false(item)
    row = item.scores[0]
    return min(row[place] for place in true) - max((row[place] for place in false), default=0.0)


def _leads(item: AnsweredItem) -> tuple[float, float]:
    """Of two images: the least lead of a caption over the other for an image, and of an image over
    the other for a caption."""
    (own_0, other_0), (other_1, own_1) = item.scores
    return min(own_0 - other_0, own_1 - other_1), min(own_0 - other_1, own_1 - other_0)


def _true_and_false(item: AnsweredItem) -> tuple[range, range]:
    """Places of an image's captions: the true ones come first, of which SugarCrepe++ has two."""
    first_false = 2 if "itt" in item.right else 1
    return range(first_false), range(first_false, len(item.captions))


def _best_false(item: AnsweredItem) -> int | None:
    """The false caption that is most similar to the image; None where there is none."""
    _, false = _true_and_false(item)
    return max(false, key=lambda place: item.scores[0][place], default=None)


def _lines(item: AnsweredItem, false: int | None) -> list[tuple[str, Words]]:
    """The true captions, and a false one."""
    true, _ = _true_and_false(item)
    if false is None:
        return [("true", [(item.captions[place], False)]) for place in true]
    other = item.captions[false]
    lines = [("true", mark_differences(item.captions[place], other)) for place in true]
    return [*lines, ("false", mark_differences(other, item.captions[0]))]


def _two_lines(item: AnsweredItem) -> list[tuple[str, Words]]:
    one, other = item.captions
    return [("first", mark_differences(one, other)), ("second", mark_differences(other, one))]


def _score(run: int, item: AnsweredItem, false: int | None) -> Score:
    """Of two images the least leads; else cosines, of two true captions the lower one's."""
    if len(item.images) == 2:
        by_image, by_text = _leads(item)
        return Score(run, f"{by_image:+.3f}", f"{by_text:+.3f}", _right(item))
    row, (true, _) = item.scores[0], _true_and_false(item)
    lowest = min(row[place] for place in true)
    return Score(run, f"{lowest:.3f}", "" if false is None else f"{row[false]:.3f}", _right(item))
