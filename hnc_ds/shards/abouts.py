"""What negatives turn on, counted while shards are packed: predicates and classes of attributes.

Of some images, spread evenly, every group is kept as the numbers of its negatives' kinds. That is
enough to tell how often a training would draw what, whatever its settings (balance.py), and some
hundred kilobytes whatever the size of the data.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hnc_ds.captions.about import KINDS, kind_of
from hnc_ds.records import CaptionGroup
from hnc_ds.shards.format import Abouts

OF_SHARD, OF_FOLDER = 256, 1024
"""Most images of which groups are kept; at least half as many, or all where there are fewer."""

WATCHED = 12
"""Predicates, and classes of attributes, that a training's log distinguishes."""

Kind = tuple[str, str]
"""A negative's type, and what it is about."""

_Groups = tuple[tuple[int, ...], ...]


class SeenAbouts:
    """Counts of one shard, or sums of several, which depend on their order.

    Args:
        most: Images whose groups are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[Kind] = Counter()
        self._numbers: dict[Kind, int] = {}
        self._images: list[_Groups] = []
        self._seen, self._every = 0, 1

    def add(self, groups: Sequence[CaptionGroup]) -> None:
        """Count the negatives of an image."""
        kinds = [[(n.type, n.about) for n in group.negatives] for group in groups]
        for of_group in kinds:
            self._counts.update(of_group)
        if self._seen % self._every == 0:
            self._images.append(tuple([tuple(map(self._number, group)) for group in kinds]))
            self._thin(self._every)
        self._seen += 1

    def add_shard(self, negatives: Mapping[str, int], abouts: Abouts | None) -> None:
        """Add the sums of a shard.

        Args:
            negatives: Their number by type.
            abouts: What they are about; None where none of them says it.
        """
        if abouts is None:
            self._counts.update({(type_, ""): count for type_, count in negatives.items()})
            return
        for type_, counts in abouts.counts.items():
            self._counts.update({(type_, about): count for about, count in counts.items()})
        self._thin(abouts.every)
        numbers = [self._number(kind) for kind in abouts.kinds]
        for image in abouts.images[:: max(1, self._every // abouts.every)]:
            self._images.append(tuple([tuple([numbers[n] for n in group]) for group in image]))
        self._thin(self._every)

    def told(self) -> Abouts | None:
        """The sums; None where no negative says what it is about."""
        if not any(about for _, about in self._counts):
            return None
        counts: dict[str, dict[str, int]] = {}
        for (type_, about), count in sorted(self._counts.items()):
            counts.setdefault(type_, {})[about] = count
        return Abouts(counts, tuple(self._numbers), tuple(self._images), self._every)

    def _thin(self, every: int) -> None:
        """Keep every second image, every fourth, and so on: at least so far apart, and no more
        than there may be."""
        while self._every < every or len(self._images) > self._most:
            self._images, self._every = self._images[::2], 2 * self._every

    def _number(self, kind: Kind) -> int:
        return self._numbers.setdefault(kind, len(self._numbers))


def most_common(
    abouts: Abouts | None, types: Collection[str], most: int = WATCHED
) -> tuple[str, ...]:
    """Predicates and classes of attributes with the most negatives of some types, so many of each;
    none where nothing is known."""
    counts: Counter[str] = Counter()
    for type_, of_type in (abouts.counts if abouts else {}).items():
        if type_ in types:
            counts.update({about: count for about, count in of_type.items() if about})
    ordered = sorted(counts, key=lambda about: (-counts[about], about))
    return tuple(
        about for kind in KINDS for about in [a for a in ordered if kind_of(a) == kind][:most]
    )
