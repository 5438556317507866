"""One scene graph -> its caption groups. A pure function of the graph, the seed and the types."""

import random

from hnc_ds.captions.negative_types import NEGATIVE_TYPES
from hnc_ds.captions.statements import DescribedImage, Naming
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph

PLAIN_MIX = Naming()


def caption_groups(
    graph: SceneGraph,
    types: tuple[str, ...],
    seed: int,
    most: int,
    naming: Naming = PLAIN_MIX,
) -> ImageCaptions:
    """All caption groups of an image.

    Args:
        graph: What is annotated of it.
        types: Names of NEGATIVE_TYPES to make.
        seed: With the image's id and a type's name, it fixes every draw of that type.
        most: Groups at the most.
        naming: How the ends of relations are named.
    """

    def stream(purpose: str) -> random.Random:
        # A string seeds through its bytes, not through hash(): the same in every process.
        return random.Random(f"{seed}/{graph.image_id}/{purpose}")

    image = DescribedImage(graph, stream("statements"), most, naming)
    negatives: dict[str, dict[str, Negative]] = {s.text: {} for s in image.statements}
    kinds: dict[str, str] = {}
    for name in types:
        for pair in NEGATIVE_TYPES[name](image, stream(name)):
            kinds[pair.positive] = pair.kind
            found = negatives.setdefault(pair.positive, {})
            found.setdefault(pair.negative.caption, pair.negative)
    groups = [
        CaptionGroup(
            positive,
            kinds[positive],
            tuple(n for text, n in found.items() if text not in negatives),
        )
        for positive, found in negatives.items()
        if found
    ]
    return ImageCaptions(graph.image_id, tuple(g for g in groups if g.negatives)[:most])
