"""Coverage statistics of captions: their number, their topics, and what limits them.

``coverage_of`` counts one image. A ``Coverage`` consists of counts and histograms, so its size
depends on the vocabulary only, and sums are the same in any order.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import accumulate
from math import ceil
from typing import TypeVar

import msgspec
from msgspec import structs

from hnc_ds.captions.language.attribute_classes import CLASSES, classes_of
from hnc_ds.captions.language.wording import before_noun, predicative
from hnc_ds.captions.negatives.salience import LARGEST, SIDES, is_background, is_part
from hnc_ds.errors import counted
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph, SceneObject

COMMON = 0.01
"""Minimum fraction of the negatives for a predicate, class or value to count as common."""

_Key = TypeVar("_Key", int, str)


class Yield(msgspec.Struct, frozen=True):
    """Number of candidates of one negative type at each stage."""

    statements: int = msgspec.field(default=0, name="said")
    """True statements that the type may change; the key in OUT.stats.json is 'said'."""
    tried: int = 0
    """Changes of them that were checked against the graph."""
    refuted: int = 0
    """Changes that the graph refutes: each could be a negative."""
    balanced_away: int = 0
    """Refuted changes that are dropped for balance."""
    written: int = 0
    """Negatives in the file. Candidates neither written nor balanced away had no room or were
    duplicates."""

    def plus(self, other: "Yield") -> "Yield":
        """The sum of both."""
        return Yield(
            self.statements + other.statements,
            self.tried + other.tried,
            self.refuted + other.refuted,
            self.balanced_away + other.balanced_away,
            self.written + other.written,
        )

    @property
    def no_room(self) -> int:
        """Refuted changes that are neither balanced away nor written."""
        return max(0, self.refuted - self.balanced_away - self.written)


class Share(msgspec.Struct, frozen=True):
    """A fraction as two counts."""

    number: int = 0
    of: int = 0

    def plus(self, other: "Share") -> "Share":
        """The sum of both."""
        return Share(self.number + other.number, self.of + other.of)


class Coverage(msgspec.Struct):
    """Counts over a set of images, with keys in order of occurrence."""

    pairs: dict[int, int] = {}
    """Number of pairs (negatives) of an image -> images."""
    pairs_where_related: dict[int, int] = {}
    """The same for images with annotated relations; empty without graphs."""
    predicates: dict[str, int] = {}
    """Predicate -> negatives with it."""
    positive_predicates: dict[str, int] = {}
    """Predicate -> true captions with it, among those of such negatives."""
    left_right_images: int = 0
    """Images in which more than half of the relation negatives are about left or right."""
    attribute_classes: dict[str, int] = {}
    """Class -> negatives about an attribute of it."""
    attribute_values: dict[str, int] = {}
    """Value -> negatives with it."""
    attributes: Share = Share()
    """Annotated attributes of objects that a true caption states and a negative contradicts; 0 of 0
    without graphs."""
    largest: Share = Share()
    """Objects with the largest boxes of each image that are in true captions."""
    largest_things: Share = Share()
    """The same without stuff and parts."""
    yields: dict[str, Yield] = {}
    """Per negative type."""

    def add(self, other: "Coverage") -> None:
        """Add the counts of further images."""
        _add(self.pairs, other.pairs)
        _add(self.pairs_where_related, other.pairs_where_related)
        _add(self.predicates, other.predicates)
        _add(self.positive_predicates, other.positive_predicates)
        self.left_right_images += other.left_right_images
        _add(self.attribute_classes, other.attribute_classes)
        _add(self.attribute_values, other.attribute_values)
        self.attributes = self.attributes.plus(other.attributes)
        self.largest = self.largest.plus(other.largest)
        self.largest_things = self.largest_things.plus(other.largest_things)
        for name, found in other.yields.items():
            self.yields[name] = self.yields.get(name, Yield()).plus(found)

    def in_order(self) -> "Coverage":
        """A copy with sorted keys."""
        histograms = {
            name: dict(sorted(counts.items()))
            for name, counts in structs.asdict(self).items()
            if isinstance(counts, dict)
        }
        return structs.replace(self, **histograms)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.pairs.values())


def coverage_of(
    graph: SceneGraph | None, captions: ImageCaptions, yields: Mapping[str, Yield] | None = None
) -> Coverage:
    """The counts of one image.

    Args:
        graph: Source of the captions; None leaves out the counts of objects and attributes.
        captions: All captions of the image.
        yields: Candidates per type; ``written`` is counted here.
    """
    groups = captions.groups
    written = Counter([negative.type for group in groups for negative in group.negatives])
    predicates, before, classes, values = list[str](), list[str](), list[str](), list[str]()
    denying: list[tuple[CaptionGroup, set[str]]] = []
    for group in groups:
        stated, turned = set(), set()
        for negative in group.negatives:
            if not negative.about:
                continue
            if _is_about_attribute(negative):
                turned.add(negative.about)
                classes.append(negative.about)
                values.append(_value(negative))
            else:
                stated.add(_predicate_before(negative))
                predicates.append(negative.about)
        before += stated
        if turned:
            denying.append((group, turned))
    sided = _left_right(Counter(predicates))
    found = Coverage(
        pairs={written.total(): 1},
        predicates=dict(Counter(predicates)),
        positive_predicates=dict(Counter(before)),
        left_right_images=int(2 * sided.number > sided.of),
        attribute_classes=dict(Counter(classes)),
        attribute_values=dict(Counter([value for value in values if value])),
        yields=_with_written(yields or {}, written),
    )
    if graph is not None:
        _count_in_graph(found, graph, groups, denying)
    return found


def _with_written(yields: Mapping[str, Yield], written: Mapping[str, int]) -> dict[str, Yield]:
    return {
        name: structs.replace(yields.get(name, Yield()), written=written.get(name, 0))
        for name in {**yields, **written}
    }


def _count_in_graph(
    found: Coverage,
    graph: SceneGraph,
    groups: Sequence[CaptionGroup],
    denying: Sequence[tuple[CaptionGroup, set[str]]],
) -> None:
    objects = [graph.objects[object_id] for object_id in sorted(graph.objects)]
    if any(one.relations for one in objects):
        found.pairs_where_related = dict(found.pairs)
    areas = [_visible_area(graph, one) for one in objects]
    # Ties keep the order of ids.
    by_size = sorted([i for i in range(len(objects)) if areas[i] > 0], key=lambda i: -areas[i])
    names = [one.name for one in objects]
    things = [i for i in by_size if not is_part(names[i]) and not is_background(names[i])]
    spoken_of = {i for group in groups for i in group.objects}
    found.largest = _mentioned(by_size[:LARGEST], spoken_of)
    found.largest_things = _mentioned(things[:LARGEST], spoken_of)
    attributes = [{*one.attributes} for one in objects]
    denied = _denied(attributes, denying)
    found.attributes = Share(len(denied), sum(map(len, attributes)))


def _mentioned(objects: Sequence[int], spoken_of: set[int]) -> Share:
    return Share(len(spoken_of.intersection(objects)), len(objects))


def _visible_area(graph: SceneGraph, one: SceneObject) -> int:
    """Area of a box within the image, or of the whole box if the image's size is unknown."""
    if graph.width <= 0 or graph.height <= 0:
        return one.w * one.h
    width = min(one.x + one.w, graph.width) - max(0, one.x)
    height = min(one.y + one.h, graph.height) - max(0, one.y)
    return max(0, width) * max(0, height)


def _denied(
    attributes: Sequence[set[str]], denying: Sequence[tuple[CaptionGroup, set[str]]]
) -> set[tuple[int, str]]:
    """Annotated attributes (object, value) that a true caption states and a negative contradicts.

    Args:
        attributes: Attributes of each object.
        denying: Groups with the attribute classes of their negatives.
    """
    found = set()
    for group, turned in denying:
        caption = f" {group.positive[:-1].lower()} "
        for i in group.objects:
            for value in attributes[i] if i < len(attributes) else ():
                if turned.isdisjoint(_class_names(value)) or (i, value) in found:
                    continue
                if any(f" {word} " in caption for word in _forms(value)):
                    found.add((i, value))
    return found


@lru_cache(maxsize=1 << 14)
def _class_names(value: str) -> tuple[str, ...]:
    return tuple(cls.name for cls in classes_of(value))


def coverage_lines(coverage: Coverage, types: Sequence[str] = ()) -> Iterator[str]:
    """A summary in lines of at most 100 columns, without unknown figures.

    Args:
        coverage: The counts.
        types: Negative types in the order of the table; others follow by name.
    """
    if not coverage.images:
        return
    for title, text in _figures(coverage):
        yield f"  {title:22}{text}"
    yield from _yield_table(coverage.yields, types)


def _figures(coverage: Coverage) -> Iterator[tuple[str, str]]:
    pairs = coverage.pairs
    total = sum(number * images for number, images in pairs.items())
    average, tenth = total / coverage.images, quantile(pairs, 0.1)
    yield (
        "pairs per image",
        f"{average:.1f} on average, median {median(pairs):g}, 10th percentile {tenth}",
    )
    related = coverage.pairs_where_related
    least = f"; at least {min(related)} where relations are annotated" if related else ""
    yield "", f"none in {pairs.get(0, 0):,} of {counted(coverage.images, 'image')}{least}"
    if coverage.predicates:
        yield from _relation_figures(coverage)
    for title, counts in (
        ("attribute classes", coverage.attribute_classes),
        ("attribute values", coverage.attribute_values),
    ):
        if counts:
            yield title, f"{_common_of(counts)} of the attribute negatives"
    if coverage.attributes.of:
        yield "annotated attributes", f"{_percent(coverage.attributes)} have negatives"
    if coverage.largest.of:
        yield f"{LARGEST} largest objects", f"{_percent(coverage.largest)} are in true captions"
        things = _percent(coverage.largest_things)
        yield f"{LARGEST} largest things", f"{things} are, parts and backgrounds left out"


def _relation_figures(coverage: Coverage) -> Iterator[tuple[str, str]]:
    negatives = _left_right(coverage.predicates)
    positives = _left_right(coverage.positive_predicates)
    yield "left and right", f"{_percent(negatives)} negatives with a relation"
    yield "", f"{_percent(positives)} true captions of these negatives"
    images = counted(coverage.left_right_images, "image")
    yield "", f"more than half of the negatives with a relation in {images}"
    others = {name: n for name, n in coverage.predicates.items() if name not in SIDES}
    if others:
        yield "other predicates", f"{_common_of(others)} of the other negatives with a relation"


def _yield_table(yields: Mapping[str, Yield], types: Sequence[str]) -> Iterator[str]:
    """Empty if only ``written`` was counted."""
    if not any(found.statements or found.tried for found in yields.values()):
        return
    names = [*types, *sorted(yields.keys() - {*types})]
    rows = [(name, yields.get(name, Yield())) for name in names]
    wide = max(len(name) for name in names)
    yield ""
    yield (
        f"  {'type':{wide}} {'true':>11} {'changes':>11} {'refuted':>11} {'balanced':>11} "
        f"{'no':>11} {'written':>11}"
    )
    yield f"  {'':{wide}} {'statements':>11} {'tried':>11} {'':>11} {'away':>11} {'room':>11}"
    for name, found in rows:
        yield _row(f"{name:{wide}}", found, found.no_room)
    total = reduce(Yield.plus, [found for _, found in rows])
    yield _row(f"{'all':{wide}}", total, sum(found.no_room for _, found in rows))


def _row(name: str, found: Yield, no_room: int) -> str:
    return (
        f"  {name} {found.statements:>11,} {found.tried:>11,} {found.refuted:>11,} "
        f"{found.balanced_away:>11,} {no_room:>11,} {found.written:>11,}"
    )


def median(counts: Mapping[int, int]) -> float:
    """The median of a histogram.

    Args:
        counts: Value -> count; not empty.
    """
    number = sum(counts.values())
    return (_ranked(counts, (number + 1) // 2) + _ranked(counts, number // 2 + 1)) / 2


def quantile(counts: Mapping[int, int], share: float) -> int:
    """A quantile of a histogram by nearest rank.

    Args:
        counts: Value -> count; not empty.
        share: Over 0, at most 1.
    """
    return _ranked(counts, max(1, ceil(share * sum(counts.values()))))


def _ranked(counts: Mapping[int, int], rank: int) -> int:
    """The value with a rank, counted from 1."""
    values = sorted(counts)
    sums = accumulate(counts[value] for value in values)
    return next(value for value, sum_ in zip(values, sums, strict=True) if sum_ >= rank)


def common(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Names with at least the fraction COMMON of all counts, the most frequent first."""
    least = COMMON * sum(counts.values())
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(name for name in names if counts[name] >= least)


def _common_of(counts: Mapping[str, int]) -> str:
    return f"{len(common(counts))} of {len(counts)} have {COMMON:.0%} or more each"


def _left_right(predicates: Mapping[str, int]) -> Share:
    sided = sum(predicates.get(name, 0) for name in SIDES)
    return Share(sided, sum(predicates.values()))


def _percent(share: Share) -> str:
    return f"{share.number / (share.of or 1):.1%} of {share.of:,}"


def _predicate_before(negative: Negative) -> str:
    """The predicate of the true caption of a negative with a predicate."""
    if negative.replaced is not None and negative.replaced[1] == negative.about:
        return negative.replaced[0]
    return negative.about


def _is_about_attribute(negative: Negative) -> bool:
    """By type as well, since 'cooking' is both an attribute class and a predicate."""
    return negative.about in _VALUES and not negative.type.startswith("relation")


def _value(negative: Negative) -> str:
    """The attribute of its class that a negative contains; '' if there is none."""
    of_class = _VALUES[negative.about]
    if negative.replaced is not None and negative.replaced[1] in of_class:
        return of_class[negative.replaced[1]]
    word = _pattern(negative.about).search(negative.caption.lower())
    return of_class[word[0]] if word else ""


@lru_cache(maxsize=1 << 14)
def _forms(value: str) -> tuple[str, ...]:
    """The word forms of a value: 'wood', 'wooden', 'made of wood'."""
    return tuple(sorted({value, before_noun(value), predicative(value)}))


_VALUES = {
    cls.name: {form: value for cell in cls.cells for value in cell for form in _forms(value)}
    for cls in CLASSES
}
"""Class -> word form -> value."""


@lru_cache(maxsize=len(CLASSES))
def _pattern(class_name: str) -> re.Pattern[str]:
    words = sorted(_VALUES[class_name], key=lambda word: (-len(word), word))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])")


def _add(counts: dict[_Key, int], others: Mapping[_Key, int]) -> None:
    for name, number in others.items():
        counts[name] = counts.get(name, 0) + number
