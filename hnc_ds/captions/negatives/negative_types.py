"""The table of negative types. To add one, write its functions and add a line here.

A negative type yields only pairs that the image's scene graph proves, in bundles whose words
balance; groups.py chooses among them. The order is that of columns in reports.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from hnc_ds.captions.negatives import attributes, counting, logic, relations, swaps
from hnc_ds.captions.negatives.changes import Bundle, Proposal
from hnc_ds.captions.negatives.statements import DescribedImage


class NegativeType(NamedTuple):
    """The functions of a negative type."""

    bundles: Callable[[DescribedImage], Iterator[Bundle]]
    """Negatives that balance within the image."""
    statements: Callable[[DescribedImage], Sequence[object]] = lambda image: ()
    """True statements that it may change, for the statistics."""
    proposals: Callable[[DescribedImage], Iterator[Proposal]] | None = None
    """Changes for the balance over the data set; None for types whose negatives have the words of
    their positives, which use ``bundles``."""
    pairs: int = 1
    """Caption pairs per change."""


_attributes = attrgetter("attribute_statements")


def _relations(subject: bool, object_: bool) -> Callable[[DescribedImage], Sequence[object]]:
    return lambda image: image.relation_statements(subject, object_)


def _either_relations(image: DescribedImage) -> Sequence[object]:
    if image.options.balance == "image":
        return logic.fans(image)
    return image.relation_statements(False, False)


def _swappable(image: DescribedImage) -> Sequence[object]:
    return [*image.relation_statements(True, True), *logic.existing(image)]


HNC_TYPES = {
    "attribute": NegativeType(
        attributes.wrong_attribute, _attributes, attributes.propose_attribute
    ),
    "object": NegativeType(attributes.wrong_bearer, _attributes, attributes.propose_bearer),
    "attribute_subg": NegativeType(
        attributes.wrong_described_subject,
        _relations(True, False),
        attributes.propose_described_subject,
    ),
    "relation_subj": NegativeType(
        relations.wrong_subject, _relations(False, False), relations.propose_subject
    ),
    "relation_obj": NegativeType(
        relations.wrong_object, _relations(False, False), relations.propose_object
    ),
    "relation_pred": NegativeType(
        relations.wrong_predicate, _relations(False, False), relations.propose_predicate
    ),
    "relation_attr_subj": NegativeType(
        relations.wrong_described_bearer,
        _relations(True, False),
        relations.propose_described_bearer,
    ),
    "relation_attr_obj": NegativeType(
        relations.wrong_described_object,
        _relations(False, True),
        relations.propose_described_object,
    ),
    "relation_attr_pred": NegativeType(
        relations.wrong_described_predicate,
        _relations(True, True),
        relations.propose_described_predicate,
    ),
    "obj_count": NegativeType(counting.wrong_count, counting.known_numbers, counting.propose_count),
    "obj_comp_count": NegativeType(
        counting.wrong_comparison, counting.comparable, counting.propose_comparison
    ),
    "obj_verify_count": NegativeType(
        counting.wrong_existence,
        attrgetter("existing_relations"),
        counting.propose_existence,
        counting.PAIRS_OF_EXISTENCE,
    ),
    "obj_verify_count_attr": NegativeType(
        counting.wrong_attribute_existence,
        attrgetter("existences"),
        counting.propose_attribute_existence,
        counting.PAIRS_OF_EXISTENCE,
    ),
    "and_logic_attr": NegativeType(
        logic.both_attributes, logic.existing, logic.propose_both_attributes
    ),
    "and_logic_rel": NegativeType(
        logic.both_relations, _relations(False, False), logic.propose_both_relations
    ),
    "xor_logic_attr": NegativeType(
        logic.either_attribute, logic.existing, logic.propose_either_attribute
    ),
    "xor_logic_rel": NegativeType(
        logic.either_relation, _either_relations, logic.propose_either_relation
    ),
}
"""The types of Doenmez et al. 2023 (HNC), under the names of the released files; the proofs and the
balance are ours."""

SWAP_TYPES = {
    "swap": NegativeType(swaps.swapped_ends, swaps.described_or_bare),
    "swap_attribute": NegativeType(swaps.swapped_attributes, _swappable),
}

PEER_TYPES = {
    "negclip_noun": NegativeType(swaps.swapped_nouns),
    "negclip_adjective": NegativeType(partial(swaps.swapped_attributes, type_="negclip_adjective")),
    "negclip_verb": NegativeType(swaps.swapped_verb_phrases),
    "structure_clip_relation": NegativeType(
        partial(swaps.swapped_ends, type_="structure_clip_relation")
    ),
    "structure_clip_attribute": NegativeType(
        partial(swaps.swapped_attributes, type_="structure_clip_attribute")
    ),
}
"""The negatives of NegCLIP and Structure-CLIP, for comparison; not made by default, as most of them
equal captions of the types above."""

NEGATIVE_TYPES = HNC_TYPES | SWAP_TYPES | PEER_TYPES

DEFAULT_TYPES = tuple(HNC_TYPES | SWAP_TYPES)

FAMILIES = {
    "hnc": tuple(HNC_TYPES),
    "swaps": tuple(SWAP_TYPES),
    "negclip": tuple(name for name in PEER_TYPES if name.startswith("negclip")),
    "structure_clip": tuple(name for name in PEER_TYPES if name.startswith("structure_clip")),
}
"""Names that `--types` accepts for several types."""
