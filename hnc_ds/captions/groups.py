"""One scene graph -> its caption groups. A pure function of the graph, the seed and the types."""

from collections import Counter, deque
from collections.abc import Iterator
from math import inf
from operator import itemgetter

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from hnc_ds.captions.balance import Keys, Quotas, keys_of
from hnc_ds.captions.coverage import Yield
from hnc_ds.captions.negatives.exchange import Bundle, CaptionPair
from hnc_ds.captions.negatives.negative_types import (
    NEGATIVE_TYPES,
    PAIRS_OF_A_CHANGE,
    PROPOSING,
    STATEMENTS,
)
from hnc_ds.captions.negatives.proposals import Proposal, balanced
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import CaptionGroup, ImageCaptions, SceneGraph

PLAIN = Options()

FEWEST_SIDES = 4
"""Pairs about left and right where there are fewer about other relations."""

FEWEST = 60
"""Pairs of an image, below which what can be exchanged within it is written, too."""


def caption_groups(
    graph: SceneGraph,
    types: tuple[str, ...],
    seed: int,
    options: Options = PLAIN,
    quotas: Quotas | None = None,
) -> ImageCaptions:
    """All caption groups of an image; as ``captions_and_yields``."""
    return captions_and_yields(graph, types, seed, options, quotas)[0]


def captions_and_yields(
    graph: SceneGraph,
    types: tuple[str, ...],
    seed: int,
    options: Options = PLAIN,
    quotas: Quotas | None = None,
) -> tuple[ImageCaptions, dict[str, Yield]]:
    """All caption groups of an image, and what became of all that each type could say.

    Types take turns with one bundle each until the image has its groups, so none crowds out the
    rest; a bundle is taken whole or not at all, so the words of true and false captions balance.

    With balance over the data set, at most half of the pairs about relations are about left and
    right.

    Args:
        graph: What is annotated of it.
        types: Names of NEGATIVE_TYPES to make.
        seed: With the image's id and a type's name, it fixes every draw of that type.
        options: How many groups, and how things are named.
        quotas: Which share of each change is kept, for balance over the data set.
    """
    image = DescribedImage(graph, f"{seed}/{graph.image_id}", options, len(types))
    chosen = _Chosen(options.most, options.balance == "data")
    meter = _Meter(image)
    if options.balance == "data":
        assert quotas is not None
        _take_turns(chosen, _kept(image, types, quotas, meter), image.quota)
        _take_turns(chosen, {"sides": iter([*chosen.later])}, options.most)
        if chosen.count < FEWEST:
            _take_turns(chosen, meter.exchanges(types), image.quota, FEWEST)
    else:
        _take_turns(chosen, meter.exchanges(types), image.quota)
    yields = {name: meter.yield_of(name) for name in types}
    image.close()
    return ImageCaptions(graph.image_id, chosen.groups()), yields


def proposed_keys(
    graph: SceneGraph, types: tuple[str, ...], seed: int, options: Options
) -> tuple[Keys, NDArray[np.bool_]]:
    """What an image proposes, to be counted before any captions are written."""
    image = DescribedImage(graph, f"{seed}/{graph.image_id}", options, len(types))
    names = [name for name in types if name in PROPOSING]
    found = keys_of(
        (name, proposal)
        for name in names
        for proposal in PROPOSING[name](image)
        if proposal.contexts
    )
    image.close()
    return found


def _kept(
    image: DescribedImage, types: tuple[str, ...], quotas: Quotas, meter: "_Meter"
) -> dict[str, Iterator[Bundle]]:
    """The bundles of each type that balance lets through: of each statement one, then another."""
    proposed = [(name, proposal) for name in types for proposal in meter.proposals(name)]
    rng = image.stream("kept")
    kept: dict[str, list[tuple[int, int, Proposal]]] = {name: [] for name in types}
    rank: Counter[tuple[str, int]] = Counter()
    away: Counter[str] = Counter()
    for (name, proposal), share in zip(proposed, quotas.kept(proposed), strict=True):
        if rng.random() < share:
            place = rank[name, proposal.of]
            rank[name, proposal.of] += 1
            kept[name].append((place, proposal.of, proposal))
        else:
            away[name] += proposal.pairs
    for name, pairs in away.items():
        meter.add(name, Yield(balanced_away=pairs))
    return {
        name: (proposal.speak() for _, _, proposal in sorted(found, key=itemgetter(0, 1)))
        for name, found in kept.items()
    }


class _Meter:
    """Counts what becomes of all that the types could say of an image.

    Changes that types share are tried for the first of them.
    """

    def __init__(self, image: DescribedImage) -> None:
        self.image = image
        self._yields: dict[str, Yield] = {}

    def yield_of(self, name: str) -> Yield:
        """Of a type, but for what is written."""
        found = self._yields.get(name, Yield())
        said = STATEMENTS[name](self.image) if name in STATEMENTS else 0
        return structs.replace(found, said=said, tried=max(found.tried, found.refuted))

    def add(self, name: str, more: Yield) -> None:
        """Count more of a type."""
        self._yields[name] = self._yields.get(name, Yield()).plus(more)

    def proposals(self, name: str) -> list[Proposal]:
        """All that a type proposes."""
        if name not in PROPOSING:
            return [*balanced(self._exchanged(name))]
        before = self.image.tried
        found = [*PROPOSING[name](self.image)]
        pairs = sum(proposal.pairs for proposal in found)
        tried = self.image.tried - before
        self.add(name, Yield(tried=tried * PAIRS_OF_A_CHANGE.get(name, 1), refuted=pairs))
        return found

    def exchanges(self, types: tuple[str, ...]) -> dict[str, Iterator[Bundle]]:
        """What each type makes within the image."""
        return {name: self._exchanged(name) for name in types}

    def _exchanged(self, name: str) -> Iterator[Bundle]:
        """What is refuted of one statement and has no counterpart in another is balanced away."""
        image, bundles = self.image, NEGATIVE_TYPES[name](self.image)
        of_one = PAIRS_OF_A_CHANGE.get(name, 1)
        while True:
            tried, refuted = image.tried, image.refuted
            bundle = next(bundles, ())
            could_be = max((image.refuted - refuted) * of_one, len(bundle))
            self.add(
                name,
                Yield(
                    tried=(image.tried - tried) * of_one,
                    refuted=could_be,
                    balanced_away=could_be - len(bundle),
                ),
            )
            if not bundle:
                return
            yield bundle


def _take_turns(
    chosen: "_Chosen", found: dict[str, Iterator[Bundle]], most: int, enough: float = inf
) -> None:
    """One bundle of each type in turn, until there is no room or none left, or there are enough."""
    waiting = deque((bundles, most) for bundles in found.values())
    while waiting and chosen.count < enough:
        bundles, quota = waiting.popleft()
        bundle = next(bundles, None)
        if bundle is not None and quota > 0:
            taken = chosen.add(bundle)
            waiting.append((bundles, quota - len(bundle) if taken else quota - 1))


def _is_relation(pair: CaptionPair) -> bool:
    return pair.negative.type.startswith("relation")


def _at_sides(pair: CaptionPair) -> bool:
    """Whether it turns on left and right, before its change or after: so that what is left out
    is as often the one as the other."""
    return pair.about in SIDES or pair.negative.about in SIDES


class _Chosen:
    """The pairs of an image, gathered by positive."""

    def __init__(self, most: int, halved: bool) -> None:
        self.most = most
        self.halved = halved
        self.later: list[Bundle] = []
        """About left and right, of which there are too many so far."""
        self.pairs: dict[str, dict[str, CaptionPair]] = {}
        self.negatives: set[str] = set()
        self.count = 0
        """Pairs of a true caption and a false one."""
        self._told = {True: [0, 0], False: [0, 0]}
        """Pairs about relations, of relation types and of others: those that are not about left
        and right, and those that are."""

    def add(self, bundle: Bundle) -> bool:
        """Take a bundle, if there is room for it and it says nothing twice."""
        room = self.most - len(self.pairs)
        if room < len(bundle) and room < len({p.positive for p in bundle} - self.pairs.keys()):
            return False
        if any(self._is_known(pair) for pair in bundle):
            return False
        if self.halved and not self._has_room_for_sides(bundle):
            self.later.append(bundle)
            return False
        for pair in bundle:
            beside = self.pairs.setdefault(pair.positive, {})
            self.count += pair.negative.caption not in beside
            beside[pair.negative.caption] = pair
            self.negatives.add(pair.negative.caption)
        return True

    def _has_room_for_sides(self, bundle: Bundle) -> bool:
        told = [
            (self._told[_is_relation(pair)], _at_sides(pair))
            for pair in bundle
            if pair.about and pair.kind != "attribute"
        ]
        for counts, at_sides in told:
            counts[at_sides] += 1
        for counts, at_sides in told:
            if at_sides and counts[True] > max(FEWEST_SIDES, counts[False]):
                for taken, sides in told:
                    taken[sides] -= 1
                return False
        return True

    def _is_known(self, pair: CaptionPair) -> bool:
        negative = pair.negative.caption
        if pair.positive in self.negatives or negative in self.pairs:
            return True  # open world only: what one graph proves is consistent
        return negative in self.pairs.get(pair.positive, ())

    def groups(self) -> tuple[CaptionGroup, ...]:
        """The groups, in the order in which their positives were first taken."""
        found = []
        for positive, pairs in self.pairs.items():
            first = next(iter(pairs.values()))
            negatives = tuple([pair.negative for pair in pairs.values()])
            found.append(CaptionGroup(positive, first.kind, negatives, first.objects))
        return tuple(found)
