"""Which captions each type makes, and what holds of all of them, on graphs made by hand."""

from collections import Counter

import pytest

from hnc_ds.captions.negatives.negative_types import FAMILIES
from tests.captions.negatives.small_scenes import (
    ALL,
    groups_of,
    in_a_row,
    over_seeds,
    proposed,
    star_above_ring,
    thing,
)

# fmt: off
ONE_OF_EACH = {
    "attribute": ("The ring is blue.", "The ring is green."),
    "object": ("The box is yellow.", "The star is yellow."),
    "attribute_subg": (
        "The blue ring is to the left of the cross.",
        "The green ring is to the left of the cross."),
    "relation_subj": (
        "The star is to the left of the ring.", "The cross is to the left of the ring."),
    "relation_obj": (
        "The ring is to the right of the star.", "The ring is to the right of the cross."),
    "relation_pred": (
        "The box is to the left of the cross.", "The box is to the right of the cross."),
    "relation_attr_subj": (
        "The blue ring is to the right of the star.", "The blue box is to the right of the star."),
    "relation_attr_obj": (
        "The box is to the left of the green cross.", "The box is to the left of the green star."),
    "relation_attr_pred": (
        "The blue ring is to the left of the green cross.",
        "The blue ring is to the right of the green cross."),
    "obj_count": ("There are three cats.", "There are two cats."),
    "obj_comp_count": ("There are fewer stars than dogs.", "There are more stars than dogs."),
    "obj_verify_count": (
        "There is no star that is to the right of the ring.",
        "There is at least one star that is to the right of the ring."),
    "obj_verify_count_attr": (
        "There is at least one star that is red.", "There is no star that is red."),
    "and_logic_attr": (
        "There is both a blue ring and a red star.", "There is both a green ring and a red star."),
    "and_logic_rel": (
        "The box is both to the left of the ring and to the left of the cross.",
        "The box is both to the left of the ring and to the right of the cross."),
    "xor_logic_attr": (
        "There is either a green ring or a red star.",
        "There is either a blue ring or a red star."),
    "xor_logic_rel": (
        "The box is to the left of either the ring or the star.",
        "The box is to the left of either the ring or the cross."),
    "swap": (
        "The red star is to the left of the blue ring.",
        "The blue ring is to the left of the red star."),
    "swap_attribute": (
        "The red star is to the left of the blue ring.",
        "The blue star is to the left of the red ring."),
    "negclip_noun": (
        "The red star is to the left of the blue ring.",
        "The red ring is to the left of the blue star."),
    "negclip_adjective": (
        "There is both a red star and a yellow box.", "There is both a yellow star and a red box."),
    "negclip_verb": (
        "There is both a box to the left of the ring and a cross to the right of the star.",
        "There is both a box to the right of the star and a cross to the left of the ring."),
    "structure_clip_relation": (
        "The red star is to the left of the blue ring.",
        "The blue ring is to the left of the red star."),
    "structure_clip_attribute": (
        "The red star is to the left of the blue ring.",
        "The blue star is to the left of the red ring."),
}
# fmt: on


def test_every_type_has_an_example_below():
    assert tuple(ONE_OF_EACH) == ALL
    assert {name for family in FAMILIES.values() for name in family} == {*ALL}


@pytest.mark.parametrize(("type_", "pair"), ONE_OF_EACH.items())
def test_what_each_type_makes_of_one_small_scene(type_, pair):
    found = over_seeds(in_a_row(), (type_,), seeds=150)
    assert (pair[0], type_, pair[1]) in found
    assert {type_} == {kind for _, kind, _ in found}


@pytest.mark.parametrize("type_", ALL)
def test_true_and_false_captions_hold_the_same_words(type_):
    for seed in range(20):
        words = Counter()
        for group in groups_of(in_a_row(), (type_,), seed):
            for negative in group.negatives:
                words.update(negative.caption.replace(".", "").split())
                words.subtract(group.positive.replace(".", "").split())
        assert not any(words.values()), words


def test_one_positive_gathers_the_negatives_of_all_types():
    groups = groups_of(in_a_row())
    positives = [group.positive for group in groups]
    assert len(set(positives)) == len(positives)
    most = max(groups, key=lambda group: len({n.type for n in group.negatives}))
    assert len({n.type for n in most.negatives}) >= 3


def test_replaced_words_turn_the_positive_into_the_negative():
    exchanged = {"swap", "swap_attribute", "negclip_noun", "negclip_adjective"}
    for seed in range(10):
        for group in groups_of(in_a_row(), seed=seed):
            for negative in group.negatives:
                old, new = negative.replaced
                if negative.type in exchanged:
                    both = group.positive.replace(old, "\0").replace(new, old).replace("\0", new)
                    assert both == negative.caption
                else:
                    tries = {
                        group.positive[:i] + group.positive[i:].replace(old, new, 1)
                        for i in range(len(group.positive))
                    }
                    assert negative.caption in tries


def test_captions_state_the_objects_they_mention():
    objects = in_a_row()
    names = [objects[object_id].name for object_id in sorted(objects)]
    for group in groups_of(objects):
        for text, spoken in [(group.positive, group.objects)] + [
            (n.caption, n.objects) for n in group.negatives
        ]:
            said = {name for name in names if name in text}
            assert {names[i] for i in spoken} == said, (text, spoken)


def test_no_attribute_negative_that_a_namesake_could_make_true():
    objects = {
        "a": thing("star", (10, 10, 10, 10), ["large", "red"]),
        "b": thing("star", (50, 10, 10, 10), ["small", "green"]),
    }
    found = over_seeds(objects)
    assert ("The large star is red.", "attribute", "The large star is green.") in found
    assert not any(negative == "The star is green." for _, _, negative in found)


SWAPS = ("swap", "negclip_noun", "structure_clip_relation")


@pytest.mark.parametrize("open_world", [False, True])
@pytest.mark.parametrize("edge", ["next to", "near", "touching", "holding hands with", "with"])
def test_relations_that_may_be_mutual_are_never_swapped(edge, open_world):
    objects = {
        "a": thing("man", (10, 10, 20, 20), ["young"], (edge, "b")),
        "b": thing("woman", (12, 12, 20, 20), ["old"]),
    }
    assert not over_seeds(objects, SWAPS, 5, open_world=open_world)


def test_swaps_that_make_nonsense_are_left_out():
    objects = {
        "a": thing("man", (10, 10, 20, 40), [], ("wearing", "b")),
        "b": thing("hat", (10, 5, 20, 10), ["red"]),
    }
    assert not over_seeds(objects, SWAPS, 5)


def test_frequent_predicates_do_not_crowd_out_rare_ones():
    objects = {
        str(i): thing(
            f"{letter}thing",
            (5 * i, 10, 4, 4),
            (),
            *(("to the left of", str(j)) for j in range(i + 1, 19)),
        )
        for i, letter in enumerate("abcdefghijklmnopqrs")
    }
    objects["x"] = thing("star", (0, 50, 4, 4), ["red"], ("above", "y"))
    objects["y"] = thing("ring", (0, 80, 4, 4), ["blue"])
    for seed in range(5):
        groups = groups_of(objects, ("relation_pred",), seed, most=12)
        assert len(groups) <= 12
        assert any("above" in g.positive for g in groups)


def test_seed_image_and_type_fix_the_draw():
    objects = star_above_ring(star=("red", "large")) | {
        str(i): thing(f"{c}star", (10 * i, 50, 5, 5), [c], ("above", "b"))
        for i, c in enumerate(["green", "yellow", "orange", "white"])
    }
    assert groups_of(objects) == groups_of(dict(reversed(objects.items())))
    assert groups_of(objects) != groups_of(objects, seed=1)
    assert groups_of(objects) != groups_of(objects, image_id="2")
    alone = {n for g in groups_of(objects, ("swap",)) for n in g.negatives}
    assert alone
    assert alone >= {n for g in groups_of(objects) for n in g.negatives if n.type == "swap"}


def test_a_graph_without_objects_gives_no_groups():
    assert groups_of({}) == ()


def test_a_negative_does_not_relate_a_description_to_itself():
    """'The yellow shirt is to the left of the red shirt.' -> 'The red shirt is ...'"""
    objects = {
        "a": thing("shirt", (10, 40, 9, 9), ["yellow"], ("to the left of", "b")),
        "b": thing("shirt", (70, 40, 9, 9), ["red"]),
    }
    changed = proposed(objects, "attribute_subg")
    changed |= {(true, false) for true, _, false in over_seeds(objects, ("attribute_subg",))}
    assert {true for true, _ in changed} == {
        "The yellow shirt is to the left of the red shirt.",
        "The red shirt is to the right of the yellow shirt.",
    }
    for _, false in changed:
        assert false.split(" ")[1:3] != false.removesuffix(".").split(" ")[-2:], false
