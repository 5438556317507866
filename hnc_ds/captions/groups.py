"""Caption groups of one scene graph: a pure function of the graph, seed, types and options."""

from collections import Counter, deque
from collections.abc import Iterator
from math import inf
from operator import itemgetter

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from hnc_ds.captions.balance import Keys, Quotas, keys_of
from hnc_ds.captions.coverage import Yield
from hnc_ds.captions.negatives.changes import Bundle, CaptionPair, Proposal, balanced
from hnc_ds.captions.negatives.negative_types import NEGATIVE_TYPES
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import CaptionGroup, ImageCaptions, SceneGraph

PLAIN = Options()

MIN_SIDES = 4
"""Pairs about left and right that are allowed even without pairs about other relations."""

FEW_PAIRS = 60
"""An image with fewer pairs also gets those of exchanges within the image."""

VERY_FEW_PAIRS = 10
"""An image with fewer pairs even then also gets proposals that balance rejected, those with the
highest kept fraction first; this concerns few images."""


def caption_groups(
    graph: SceneGraph,
    types: tuple[str, ...],
    seed: int,
    options: Options = PLAIN,
    quotas: Quotas | None = None,
) -> ImageCaptions:
    """The caption groups of an image, as ``captions_and_yields``."""
    return captions_and_yields(graph, types, seed, options, quotas)[0]


def captions_and_yields(
    graph: SceneGraph,
    types: tuple[str, ...],
    seed: int,
    options: Options = PLAIN,
    quotas: Quotas | None = None,
) -> tuple[ImageCaptions, dict[str, Yield]]:
    """The caption groups of an image, and per type how many candidates were kept and dropped.

    Types take turns with one bundle each until the image has its maximum number of groups. A bundle
    is taken whole or not at all, so words stay balanced. With balance over the data set, at most
    half of the pairs about relations are about left and right.

    Args:
        graph: The image's annotations.
        types: Names of NEGATIVE_TYPES.
        seed: Seed; together with the image's id and the type it determines every draw.
        options: Settings of the captions.
        quotas: Kept fraction of each change; required for balance over the data set.
    """
    image = DescribedImage(graph, f"{seed}/{graph.image_id}", options, len(types))
    chosen = _Chosen(options.max_groups, options.balance == "data")
    meter = _Meter(image)
    if options.balance == "data":
        assert quotas is not None
        kept, left = _kept(image, types, quotas, meter)
        _take_turns(chosen, kept, image.quota)
        _take_turns(chosen, {"sides": iter([*chosen.later])}, options.max_groups)
        if chosen.count < FEW_PAIRS:
            _take_turns(chosen, meter.exchanges(types), image.quota, FEW_PAIRS)
        if chosen.count < VERY_FEW_PAIRS:
            _take_turns(chosen, {"left": left}, image.quota, VERY_FEW_PAIRS)
    else:
        _take_turns(chosen, meter.exchanges(types), image.quota)
    yields = {name: meter.yield_of(name) for name in types}
    image.close()
    return ImageCaptions(graph.image_id, chosen.groups()), yields


def proposed_keys(
    graph: SceneGraph, types: tuple[str, ...], seed: int, options: Options
) -> tuple[Keys, NDArray[np.bool_]]:
    """Keys of the proposals and values of an image, for the first pass."""
    image = DescribedImage(graph, f"{seed}/{graph.image_id}", options, len(types))
    proposals = {name: NEGATIVE_TYPES[name].proposals for name in types}
    named = (
        (name, proposal)
        for name, propose in proposals.items()
        if propose is not None
        for proposal in propose(image)
        if proposal.contexts
    )
    return keys_of(named, [value for found in image.graph.attributes for value in sorted(found)])


def _kept(
    image: DescribedImage, types: tuple[str, ...], quotas: Quotas, meter: "_Meter"
) -> tuple[dict[str, Iterator[Bundle]], Iterator[Bundle]]:
    """The bundles of each type that balance keeps, one per statement before any second one; and all
    other bundles, those with the highest kept fraction first."""
    proposed = [(name, proposal) for name in types for proposal in meter.proposals(name)]
    rng = image.stream("kept")
    kept: dict[str, list[tuple[int, int, Proposal]]] = {name: [] for name in types}
    rank: Counter[tuple[str, int]] = Counter()
    away: Counter[str] = Counter()
    left: list[tuple[float, Proposal]] = []
    for (name, proposal), share in zip(proposed, quotas.kept(proposed), strict=True):
        if rng.random() < share:
            place = rank[name, proposal.of]
            rank[name, proposal.of] += 1
            kept[name].append((place, proposal.of, proposal))
        else:
            away[name] += proposal.pairs
            left.append((share, proposal))
    for name, pairs in away.items():
        meter.add(name, Yield(balanced_away=pairs))
    return {
        name: (proposal.make_bundle() for _, _, proposal in sorted(found, key=itemgetter(0, 1)))
        for name, found in kept.items()
    }, (proposal.make_bundle() for _, proposal in sorted(left, key=itemgetter(0), reverse=True))


class _Meter:
    """Counts the candidates of each type for the statistics.

    Candidates that several types share are counted for the first of them.
    """

    def __init__(self, image: DescribedImage) -> None:
        self.image = image
        self._yields: dict[str, Yield] = {}

    def yield_of(self, name: str) -> Yield:
        """The counts of a type, without ``written``."""
        found = self._yields.get(name, Yield())
        statements = len(NEGATIVE_TYPES[name].statements(self.image))
        return structs.replace(found, statements=statements, tried=max(found.tried, found.refuted))

    def add(self, name: str, more: Yield) -> None:
        """Add to the counts of a type."""
        self._yields[name] = self._yields.get(name, Yield()).plus(more)

    def proposals(self, name: str) -> list[Proposal]:
        """The proposals of a type."""
        propose = NEGATIVE_TYPES[name].proposals
        if propose is None:
            return [*balanced(self._exchanged(name))]
        before = self.image.tried
        found = [*propose(self.image)]
        pairs = sum(proposal.pairs for proposal in found)
        tried = self.image.tried - before
        self.add(name, Yield(tried=tried * NEGATIVE_TYPES[name].pairs, refuted=pairs))
        return found

    def exchanges(self, types: tuple[str, ...]) -> dict[str, Iterator[Bundle]]:
        """The bundles that each type makes within the image."""
        return {name: self._exchanged(name) for name in types}

    def _exchanged(self, name: str) -> Iterator[Bundle]:
        """The bundles of a type; refuted changes without a counterpart count as balanced away."""
        image, type_ = self.image, NEGATIVE_TYPES[name]
        bundles = type_.bundles(image)
        while True:
            tried, refuted = image.tried, image.refuted
            bundle = next(bundles, ())
            could_be = max((image.refuted - refuted) * type_.pairs, len(bundle))
            self.add(
                name,
                Yield(
                    tried=(image.tried - tried) * type_.pairs,
                    refuted=could_be,
                    balanced_away=could_be - len(bundle),
                ),
            )
            if not bundle:
                return
            yield bundle


def _take_turns(
    chosen: "_Chosen", found: dict[str, Iterator[Bundle]], quota: int, enough: float = inf
) -> None:
    """Take one bundle of each type in turn.

    Args:
        chosen: Collects the pairs.
        found: Type -> its bundles.
        quota: Maximum number of pairs per type; a rejected bundle counts as one.
        enough: Number of pairs at which to stop.
    """
    waiting = deque((bundles, quota) for bundles in found.values())
    while waiting and chosen.count < enough:
        bundles, left = waiting.popleft()
        bundle = next(bundles, None)
        if bundle is not None and left > 0:
            waiting.append((bundles, left - (len(bundle) if chosen.add(bundle) else 1)))


def _is_relation(pair: CaptionPair) -> bool:
    return pair.negative.type.startswith("relation")


def _at_sides(pair: CaptionPair) -> bool:
    """Whether the true or the false caption is about left or right; both, so that dropping pairs
    keeps the balance."""
    return pair.about in SIDES or pair.negative.about in SIDES


class _Chosen:
    """The chosen pairs of an image by positive.

    Args:
        max_groups: Maximum number of positives.
        limit_sides: Whether left and right are limited to half of the pairs about relations.
    """

    def __init__(self, max_groups: int, limit_sides: bool) -> None:
        self.max_groups = max_groups
        self.limit_sides = limit_sides
        self.later: list[Bundle] = []
        """Bundles rejected because of too many pairs about left and right so far."""
        self.pairs: dict[str, dict[str, CaptionPair]] = {}
        self.negatives: set[str] = set()
        self.count = 0
        """Number of pairs."""
        self._relation_pairs = {True: [0, 0], False: [0, 0]}
        """Whether a pair is of a relation type -> number of pairs about relations other than left
        and right, and about left and right."""

    def add(self, bundle: Bundle) -> bool:
        """Take a bundle if there is room and no caption repeats; returns whether it was taken."""
        room = self.max_groups - len(self.pairs)
        if room < len(bundle) and room < len({p.positive for p in bundle} - self.pairs.keys()):
            return False
        if any(self._is_known(pair) for pair in bundle):
            return False
        if self.limit_sides and not self._has_room_for_sides(bundle):
            self.later.append(bundle)
            return False
        for pair in bundle:
            pairs = self.pairs.setdefault(pair.positive, {})
            self.count += pair.negative.caption not in pairs
            pairs[pair.negative.caption] = pair
            self.negatives.add(pair.negative.caption)
        return True

    def _has_room_for_sides(self, bundle: Bundle) -> bool:
        """Counts the bundle's pairs, or rejects it if left and right would exceed one half."""
        counted = [
            (self._relation_pairs[_is_relation(pair)], _at_sides(pair))
            for pair in bundle
            if pair.about and pair.kind != "attribute"
        ]
        for counts, at_sides in counted:
            counts[at_sides] += 1
        for counts, at_sides in counted:
            if at_sides and counts[True] > max(MIN_SIDES, counts[False]):
                for taken, sides in counted:
                    taken[sides] -= 1
                return False
        return True

    def _is_known(self, pair: CaptionPair) -> bool:
        negative = pair.negative.caption
        if pair.positive in self.negatives or negative in self.pairs:
            return True  # happens with open-world negatives only
        return negative in self.pairs.get(pair.positive, ())

    def groups(self) -> tuple[CaptionGroup, ...]:
        """The caption groups in the order of their first pairs."""
        found = []
        for positive, pairs in self.pairs.items():
            first = next(iter(pairs.values()))
            negatives = tuple([pair.negative for pair in pairs.values()])
            found.append(CaptionGroup(positive, first.kind, negatives, first.objects))
        return tuple(found)
