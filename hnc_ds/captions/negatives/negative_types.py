"""The table of negative types. To add one: write its function, add its line here.

A negative type is a function (image) -> Iterator[Bundle]. It yields pairs that it can
justify from the image's scene graph and nothing it cannot, in bundles whose words balance;
choosing among them is groups.py's work. Order is the order of columns in reports.
"""

from collections.abc import Callable, Iterator
from functools import partial

from hnc_ds.captions.negatives import attributes, counting, logic, relations, swaps
from hnc_ds.captions.negatives.exchange import Bundle
from hnc_ds.captions.negatives.proposals import Proposal
from hnc_ds.captions.negatives.statements import DescribedImage

NegativeType = Callable[[DescribedImage], Iterator[Bundle]]
Proposing = Callable[[DescribedImage], Iterator[Proposal]]

HNC_TYPES: dict[str, NegativeType] = {
    "attribute": attributes.wrong_attribute,
    "object": attributes.wrong_bearer,
    "attribute_subg": attributes.wrong_described_subject,
    "relation_subj": relations.wrong_subject,
    "relation_obj": relations.wrong_object,
    "relation_pred": relations.wrong_predicate,
    "relation_attr_subj": relations.wrong_described_bearer,
    "relation_attr_obj": relations.wrong_described_object,
    "relation_attr_pred": relations.wrong_described_predicate,
    "obj_count": counting.wrong_count,
    "obj_comp_count": counting.wrong_comparison,
    "obj_verify_count": counting.wrong_existence,
    "obj_verify_count_attr": counting.wrong_attribute_existence,
    "and_logic_attr": logic.both_attributes,
    "and_logic_rel": logic.both_relations,
    "xor_logic_attr": logic.either_attribute,
    "xor_logic_rel": logic.either_relation,
}
"""The types of Doenmez et al. 2023, under the names of the released files."""

SWAP_TYPES: dict[str, NegativeType] = {
    "swap": swaps.swapped_ends,
    "swap_attribute": swaps.swapped_attributes,
}

PEER_TYPES: dict[str, NegativeType] = {
    "negclip_noun": swaps.swapped_nouns,
    "negclip_adjective": partial(swaps.swapped_attributes, type_="negclip_adjective"),
    "negclip_verb": swaps.swapped_verb_phrases,
    "structure_clip_relation": partial(swaps.swapped_ends, type_="structure_clip_relation"),
    "structure_clip_attribute": partial(swaps.swapped_attributes, type_="structure_clip_attribute"),
}
"""The negatives of NegCLIP and Structure-CLIP, for comparison. They are made when named: beside
the types above most of them would be the same captions once more."""

NEGATIVE_TYPES = HNC_TYPES | SWAP_TYPES | PEER_TYPES

PROPOSING: dict[str, Proposing] = {
    "attribute": attributes.propose_attribute,
    "object": attributes.propose_bearer,
    "attribute_subg": attributes.propose_described_subject,
    "relation_subj": relations.propose_subject,
    "relation_obj": relations.propose_object,
    "relation_pred": relations.propose_predicate,
    "relation_attr_subj": relations.propose_described_bearer,
    "relation_attr_obj": relations.propose_described_object,
    "relation_attr_pred": relations.propose_described_predicate,
    "obj_count": counting.propose_count,
    "obj_comp_count": counting.propose_comparison,
    "obj_verify_count": counting.propose_existence,
    "obj_verify_count_attr": counting.propose_attribute_existence,
    "and_logic_attr": logic.propose_both_attributes,
    "and_logic_rel": logic.propose_both_relations,
    "xor_logic_attr": logic.propose_either_attribute,
    "xor_logic_rel": logic.propose_either_relation,
}
"""How a type is balanced over the data set. Those that are not here are balanced by themselves,
in each image: their negatives hold the words of their positives, or are exchanged."""


STATEMENTS: dict[str, Callable[[DescribedImage], int]] = {
    "attribute": lambda image: len(image.attribute_statements()),
    "object": lambda image: len(image.attribute_statements()),
    "attribute_subg": lambda image: len(image.relation_statements(True, False)),
    "relation_subj": lambda image: len(image.relation_statements(False, False)),
    "relation_obj": lambda image: len(image.relation_statements(False, False)),
    "relation_pred": lambda image: len(image.relation_statements(False, False)),
    "relation_attr_subj": lambda image: len(image.relation_statements(True, False)),
    "relation_attr_obj": lambda image: len(image.relation_statements(False, True)),
    "relation_attr_pred": lambda image: len(image.relation_statements(True, True)),
    "obj_count": lambda image: len(counting.known_numbers(image)),
    "obj_comp_count": lambda image: len(counting.comparable(image)),
    "obj_verify_count": lambda image: len(image.existing_relations()),
    "obj_verify_count_attr": lambda image: len(image.existences()),
    "and_logic_attr": lambda image: len(logic.existing(image)),
    "and_logic_rel": lambda image: len(image.relation_statements(False, False)),
    "xor_logic_attr": lambda image: len(logic.existing(image)),
    "xor_logic_rel": lambda image: len(
        logic.fans(image)
        if image.options.balance == "image"
        else image.relation_statements(False, False)
    ),
    "swap": lambda image: len(swaps.described_or_bare(image)),
    "swap_attribute": lambda image: (
        len(image.relation_statements(True, True)) + len(logic.existing(image))
    ),
}
"""How many true statements of an image a type may change, for the statistics."""

PAIRS_OF_A_CHANGE = {
    "obj_verify_count": counting.PAIRS_OF_EXISTENCE,
    "obj_verify_count_attr": counting.PAIRS_OF_EXISTENCE,
}
"""Types of which one change gives more than one pair."""

DEFAULT_TYPES = tuple(HNC_TYPES | SWAP_TYPES)

FAMILIES = {
    "hnc": tuple(HNC_TYPES),
    "swaps": tuple(SWAP_TYPES),
    "negclip": tuple(name for name in PEER_TYPES if name.startswith("negclip")),
    "structure_clip": tuple(name for name in PEER_TYPES if name.startswith("structure_clip")),
}
"""What `--types` takes besides single names."""
