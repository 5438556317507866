"""One scene graph -> its caption groups. A pure function of the graph, the seed and the types."""

from collections import deque

from hnc_ds.captions.negatives.exchange import Bundle, CaptionPair
from hnc_ds.captions.negatives.negative_types import NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import DescribedImage, Options
from hnc_ds.records import CaptionGroup, ImageCaptions, SceneGraph

PLAIN = Options()


def caption_groups(
    graph: SceneGraph, types: tuple[str, ...], seed: int, options: Options = PLAIN
) -> ImageCaptions:
    """All caption groups of an image.

    Types take turns with one bundle each until the image has its groups, so none crowds out the
    rest; a bundle is taken whole or not at all, so the words of true and false captions balance.

    Args:
        graph: What is annotated of it.
        types: Names of NEGATIVE_TYPES to make.
        seed: With the image's id and a type's name, it fixes every draw of that type.
        options: How many groups, and how things are named.
    """
    image = DescribedImage(graph, f"{seed}/{graph.image_id}", options, len(types))
    chosen = _Chosen(options.most)
    waiting = deque((NEGATIVE_TYPES[name](image), image.quota) for name in types)
    while waiting:
        bundles, quota = waiting.popleft()
        bundle = next(bundles, None)
        if bundle is not None and quota > 0:
            taken = chosen.add(bundle)
            waiting.append((bundles, quota - len(bundle) if taken else quota - 1))
    image.close()
    return ImageCaptions(graph.image_id, chosen.groups())


class _Chosen:
    """The pairs of an image, gathered by positive."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pairs: dict[str, dict[str, CaptionPair]] = {}
        self.negatives: set[str] = set()

    def add(self, bundle: Bundle) -> bool:
        """Take a bundle, if there is room for it and it says nothing twice."""
        new = {pair.positive for pair in bundle} - self.pairs.keys()
        if len(self.pairs) + len(new) > self.most:
            return False
        if any(self._is_known(pair) for pair in bundle):
            return False
        for pair in bundle:
            self.pairs.setdefault(pair.positive, {})[pair.negative.caption] = pair
            self.negatives.add(pair.negative.caption)
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
