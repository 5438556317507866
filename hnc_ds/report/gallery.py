"""Sample pictures: which pairs are shown, with which words marked, and their thumbnails.

Pictures come from the shards that the items name; a report whose shards are gone or changed
shows the captions alone and says so.
"""

from collections.abc import Iterable, Sequence

from hnc_ds.errors import UserError
from hnc_ds.evaluation.items import PairItem, fingerprint
from hnc_ds.evaluation.measurement import Measurement
from hnc_ds.evaluation.paired import SharedItems, identity
from hnc_ds.report.cards import CARDS, Card, Gallery, Score, mark_differences, thumbnail
from hnc_ds.report.runs import Run
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import is_url


class Pictures:
    """Thumbnails from the shards of a measurement. ``remark`` says why there are none."""

    def __init__(self, measurement: Measurement) -> None:
        self._reader: ShardReader | None = None
        self.remark = ""
        header = measurement.header
        if header is None or not header.shards:
            return
        if is_url(header.shards):
            self.remark = f"Pictures are missing: the shards are far away, at {header.shards}."
            return
        try:
            reader = ShardReader(measurement.folder / header.shards)
        except UserError as error:
            self.remark = f"Pictures are missing: {error}."
            return
        if fingerprint(reader.index) != header.fingerprint:
            self.remark = f"Pictures are missing: {reader.folder} has changed since."
            return
        self._reader = reader

    def of(self, pair: PairItem) -> str:
        """The pair's picture as a small JPEG in a data: URI; empty where there is none."""
        if self._reader is None:
            return ""
        try:
            return thumbnail(self._reader.image_bytes(pair.image))
        except (UserError, IndexError) as error:
            self.remark = f"A picture is missing: {error}."
            return ""


class Curator:
    """Chooses pairs of one results file and makes cards of them, with every run's scores."""

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        self._runs = runs
        self._measurements = [run.measurements.get(name) for run in runs]
        self._pictures = [Pictures(m) if m else None for m in self._measurements]
        self._scored = [{identity(p): p for p in m.pairs} if m else {} for m in self._measurements]

    def remarks(self) -> list[str]:
        """Why pictures are missing, each reason once."""
        return list(dict.fromkeys(p.remark for p in self._pictures if p and p.remark))

    def extremes(self, run: int) -> list[Gallery]:
        """The pairs that a run gets most wrong and most right."""
        measurement = self._measurements[run]
        if measurement is None or not measurement.pairs:
            return []
        name = self._runs[run].name
        ordered = sorted(measurement.pairs, key=lambda pair: (pair.margin, identity(pair)))
        return [
            Gallery(
                f"{name}: lowest margins",
                "Where the hard negative beats the true caption by most, one pair per image.",
                self._cards(run, _one_per_image(ordered)),
            ),
            Gallery(
                f"{name}: highest margins",
                "Where the true caption wins by most, one pair per image.",
                self._cards(run, _one_per_image(reversed(ordered))),
            ),
        ]

    def changes(self, run: int, shared: SharedItems) -> list[Gallery]:
        """The pairs that this run gets right and the first did not, and the reverse."""
        both = list(zip(shared.first_pairs, shared.second_pairs, strict=True))
        first, name = self._runs[0].name, self._runs[run].name
        fixed = [(a, b) for a, b in both if a.margin <= 0 < b.margin]
        broken = [(a, b) for a, b in both if b.margin <= 0 < a.margin]
        return [
            Gallery(
                title,
                f"{about} {len(found):,} of {len(both):,} pairs; these changed most.",
                self._cards(run, _spread_over_types(_by_change(found))),
            )
            for title, about, found in (
                (f"Fixed by {name}", f"Wrong in {first}, right in {name}:", fixed),
                (f"Broken by {name}", f"Right in {first}, wrong in {name}:", broken),
            )
            if both
        ]

    def _cards(self, run: int, pairs: Iterable[PairItem]) -> list[Card]:
        pictures = self._pictures[run]
        return [
            Card(
                pictures=[pictures.of(pair) if pictures else ""],
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
    """The second run's pairs, those first whose margins moved most."""

    def largest_first(pair: tuple[PairItem, PairItem]) -> tuple[float, tuple[str, ...]]:
        first, second = pair
        return -abs(second.margin - first.margin), identity(second)

    return [second for _, second in sorted(pairs, key=largest_first)]


def _one_per_image(pairs: Iterable[PairItem]) -> list[PairItem]:
    chosen: dict[str, PairItem] = {}
    for pair in pairs:
        chosen.setdefault(pair.key, pair)
        if len(chosen) == CARDS:
            break
    return list(chosen.values())


def _spread_over_types(pairs: list[PairItem]) -> list[PairItem]:
    """The first of every type, then the second of every type ..., one per image."""
    turn: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(pairs):
        turn[pair.type] = turn.get(pair.type, -1) + 1
        ranked.append((turn[pair.type], place, pair))
    return _one_per_image(pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2]))
