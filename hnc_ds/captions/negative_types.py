"""The table of negative types. To add one: write its function, add its line here.

A negative type is a function (image, rng) -> Iterator[CaptionPair]. It yields pairs that it can
justify from the image's scene graph and nothing it cannot; choosing among them is generate.py's
work. Order is the order of columns in reports.
"""

import random
from collections.abc import Callable, Iterator

from hnc_ds.captions import attributes, relations, swaps
from hnc_ds.captions.statements import CaptionPair, DescribedImage

NegativeType = Callable[[DescribedImage, random.Random], Iterator[CaptionPair]]

NEGATIVE_TYPES: dict[str, NegativeType] = {
    "attribute": attributes.wrong_attribute,
    "relation_subj": relations.wrong_subject,
    "relation_obj": relations.wrong_object,
    "relation_pred": relations.wrong_predicate,
    "swap": swaps.swapped_ends,
}
