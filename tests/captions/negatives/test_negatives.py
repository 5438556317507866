"""Which captions come out of which graph, on graphs made by hand."""

from collections import Counter

import pytest

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, FAMILIES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import count_tables
from hnc_ds.records import Relation, SceneGraph, SceneObject

ALL = tuple(NEGATIVE_TYPES)


def thing(name, box, attributes=(), *relations):
    """relations: (predicate, object id)."""
    edges = tuple(Relation(name=p, object=o) for p, o in relations)
    return SceneObject(name, *box, attributes=tuple(attributes), relations=edges)


def star_above_ring(star=("red",), ring=("blue",), edge="above"):
    return {
        "a": thing("star", (40, 10, 20, 20), star, (edge, "b")),
        "b": thing("ring", (40, 70, 20, 20), ring),
    }


def in_a_row():
    """star, box, ring and cross from left to right; two dogs, three cats."""
    left, right = "to the left of", "to the right of"
    objects = {
        "a": thing("star", (10, 90, 9, 9), ["red"], (left, "c"), (left, "d")),
        "b": thing("box", (30, 90, 9, 9), ["yellow"], (left, "c"), (left, "d")),
        "c": thing("ring", (50, 90, 9, 9), ["blue"], (right, "a"), (right, "b"), (left, "d")),
        "d": thing("cross", (70, 90, 9, 9), ["green"], (right, "c"), (right, "a")),
    }
    for name, count in (("dog", 2), ("cat", 3)):
        for i in range(count):
            objects[f"{name}{i}"] = thing(name, (20 * i, 10 if name == "dog" else 40, 9, 9))
    return objects


def groups_of(objects, types=DEFAULT_TYPES, seed=0, most=48, image_id="1", **options):
    graph = SceneGraph(image_id, 100, 100, objects)
    return caption_groups(graph, types, seed, Options(most=most, **options)).groups


def over_seeds(objects, types=DEFAULT_TYPES, seeds=30, **options):
    """Every (positive, type, negative) that some seed gives."""
    return {
        (group.positive, negative.type, negative.caption)
        for seed in range(seeds)
        for group in groups_of(objects, types, seed, **options)
        for negative in group.negatives
    }


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


def test_captions_tell_which_objects_they_speak_of():
    objects = in_a_row()
    names = [objects[object_id].name for object_id in sorted(objects)]
    for group in groups_of(objects):
        for text, spoken in [(group.positive, group.objects)] + [
            (n.caption, n.objects) for n in group.negatives
        ]:
            said = {name for name in names if name in text}
            assert {names[i] for i in spoken} == said, (text, spoken)


def test_a_namesake_forces_an_attribute_that_singles_out():
    objects = star_above_ring() | {"c": thing("star", (80, 10, 10, 10), ["green"])}
    found = over_seeds(objects)
    positives = {positive for positive, _, _ in found}
    assert "The red star is above the blue ring." in positives
    assert not any(p.startswith(("The star is", "The stars are")) for p in positives)


@pytest.mark.parametrize("namesake", [["red"], [], ["large"]])
def test_an_object_that_words_cannot_single_out_is_not_spoken_of_as_the_one(namesake):
    objects = star_above_ring() | {"c": thing("star", (80, 10, 10, 10), namesake)}
    for positive, _, _ in over_seeds(objects):
        assert "the star" not in positive.lower()
        assert "the red star" not in positive.lower()


def test_two_attributes_single_out_where_one_does_not_and_size_comes_first():
    objects = star_above_ring(star=("red", "large")) | {
        "c": thing("star", (80, 10, 10, 10), ["red", "small"]),
        "d": thing("star", (80, 30, 10, 10), ["green", "large"]),
    }
    positives = {positive for positive, _, _ in over_seeds(objects)}
    assert "The large red star is above the blue ring." in positives


def test_dark_and_blue_are_not_said_together_as_that_is_another_colour():
    objects = {
        "a": thing("bag", (10, 10, 10, 10), ["dark", "blue"], ("to the left of", "d")),
        "b": thing("bag", (10, 50, 10, 10), ["dark", "red"]),
        "c": thing("bag", (40, 50, 10, 10), ["bright", "blue"]),
        "d": thing("box", (80, 10, 10, 10), ["dark", "green"], ("to the right of", "a")),
    }
    found = over_seeds(objects, ALL)
    assert found
    texts = {text for positive, _, negative in found for text in (positive, negative)}
    assert not any("dark blue" in text or "dark red" in text for text in texts)


def test_no_attribute_negative_that_a_namesake_could_make_true():
    objects = {
        "a": thing("star", (10, 10, 10, 10), ["large", "red"]),
        "b": thing("star", (50, 10, 10, 10), ["small", "green"]),
    }
    found = over_seeds(objects)
    assert ("The large star is red.", "attribute", "The large star is green.") in found
    assert not any(negative == "The star is green." for _, _, negative in found)


def test_what_is_not_proven_is_written_in_the_open_world_only_and_tagged():
    objects = {
        "a": thing("star", (10, 10, 20, 20), ["red"], ("near", "b")),
        "b": thing("ring", (40, 10, 20, 20), ["large"]),
        "c": thing("cross", (10, 60, 20, 20), [], ("near", "d")),
        "d": thing("box", (40, 60, 20, 20)),
    }
    assert not over_seeds(objects, ("relation_subj", "object"))
    groups = [g for s in range(9) for g in groups_of(objects, seed=s, open_world=True)]
    found = {(g.positive, n.caption) for g in groups for n in g.negatives if n.open_world}
    assert ("The star is near the ring.", "The cross is near the ring.") in found
    assert ("The star is red.", "The ring is red.") in found
    proven = over_seeds(in_a_row())
    tagged = {
        n.caption
        for s in range(9)
        for g in groups_of(in_a_row(), seed=s, open_world=True)
        for n in g.negatives
        if n.open_world
    }
    assert tagged.isdisjoint({negative for _, _, negative in proven})


def test_no_either_rests_on_what_is_not_proven():
    objects = {
        str(i): thing(f"{c}star", (20 * i, 10, 9, 9), [c, "large"])
        for i, c in enumerate(["red", "blue", "green", "white"])
    }
    objects["9"] = thing("ring", (90, 90, 9, 9))
    for seed in range(20):
        for group in groups_of(objects, ("xor_logic_attr",), seed, open_world=True):
            assert not any(negative.open_world for negative in group.negatives)


def test_with_tables_values_of_things_elsewhere_are_drawn_as_often_as_they_occur():
    def image(image_id, colour):
        return SceneGraph(image_id, 100, 100, {"a": thing("star", (1, 1, 9, 9), [colour])})

    graphs = [image(str(i), ["red", "red", "red", "blue"][i % 4]) for i in range(2000)]
    options = Options(tables=count_tables(graphs))
    words = Counter()
    for graph in graphs:
        assert not caption_groups(graph, ("attribute",), 0).groups  # one thing: nothing to exchange
        for group in caption_groups(graph, ("attribute",), 0, options).groups:
            words[group.positive] += 1
            words.update(n.caption for n in group.negatives)
            assert len(group.negatives) == 1
            words[group.positive, "true"] += 1
    for colour in ("red", "blue"):
        text = f"The star is {colour}."
        assert 0.4 < words[text, "true"] / words[text] < 0.6


def test_with_tables_nothing_is_exchanged_that_nobody_would_say():
    objects = in_a_row()
    graph = SceneGraph("1", 100, 100, objects)
    usual = count_tables([graph])
    for _, _, negative in over_seeds(objects, ("object", "relation_subj"), tables=usual):
        assert " of the " in negative  # no star is ever yellow
    assert not over_seeds(objects, ("object", "attribute"), tables=usual)


def test_with_tables_one_and_many_are_equally_often_true_and_false_of_each_name():
    def image(image_id, dogs, cats):
        names = ["dog"] * dogs + ["cat"] * cats
        boxes = {str(i): thing(name, (11 * i, 5, 9, 9)) for i, name in enumerate(names)}
        return SceneGraph(image_id, 100, 100, boxes)

    numbers = [(1, 2)] * 3 + [(2, 1)]
    graphs = [image(str(i), *numbers[i % 4]) for i in range(4000)]
    options = Options(tables=count_tables(graphs))
    true, false = Counter(), Counter()
    for graph in graphs:
        assert not caption_groups(graph, ("obj_count",), 0).groups
        for group in caption_groups(graph, ("obj_count",), 0, options).groups:
            true[group.positive] += 1
            false.update(n.caption for n in group.negatives)
    assert len(true) == 4
    assert min(true.values()) > 100
    for text, count in true.items():
        assert 0.8 < count / false[text] < 1.25


def test_the_smaller_number_is_never_said_to_be_greater():
    objects = in_a_row()
    counts = {"dogs": 2, "cats": 3, "stars": 1, "rings": 1, "boxes": 1, "crosses": 1}
    holds = {"more": int.__gt__, "fewer": int.__lt__, "as many": int.__eq__}
    seen = set()
    for positive, _, negative in over_seeds(objects, ("obj_comp_count",)):
        for text, truth in ((positive, True), (negative, False)):
            words = text.removesuffix(".").split()
            comparator, one, other = " ".join(words[2:-3]), words[-3], words[-1]
            assert holds[comparator](counts[one], counts[other]) is truth, text
            seen.add((comparator, truth))
    assert len(seen) == 6


@pytest.mark.parametrize(
    "more",
    [
        {"x": thing("dogs", (60, 60, 9, 9))},
        {"x": thing("animal", (60, 60, 9, 9))},
        {"x": thing("dog", (1, 10, 9, 9))},
    ],
)
def test_what_may_be_one_thing_or_several_is_not_counted(more):
    found = over_seeds(in_a_row() | more, ("obj_count", "obj_comp_count"))
    assert not any(
        "dog" in text for positive, _, negative in found for text in (positive, negative)
    )


@pytest.mark.parametrize("name", ["water", "jeans", "sheep", "windows", "hand", "crowd"])
def test_stuff_parts_and_plurals_are_not_counted(name):
    objects = in_a_row() | {str(i): thing(name, (30 * i, 60, 9, 9)) for i in range(4)}
    assert not any(name in positive for positive, _, _ in over_seeds(objects, ("obj_count",), 9))


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


@pytest.mark.parametrize("edge", ["of", "with", "contain", "between"])
def test_predicates_that_do_not_read_after_is_are_left_out(edge):
    assert not [f for f in over_seeds(star_above_ring(edge=edge), ALL, 5) if edge in f[0]]


def test_the_sky_and_body_parts_are_not_placed_left_or_right():
    for name in ("sky", "nose"):
        objects = {
            "a": thing(name, (10, 10, 20, 20), (), ("to the left of", "b")),
            "b": thing("man", (60, 10, 20, 20)),
        }
        assert not over_seeds(objects, ALL, 3)


def test_colours_of_people_are_not_spoken_of_but_their_hair_is():
    objects = {
        "a": thing("woman", (1, 1, 9, 9), ["black", "blond"], ("near", "c")),
        "b": thing("man", (40, 1, 9, 9), ["brunette"]),
        "c": thing("bus", (60, 60, 9, 9), ["black"]),
        "d": thing("car", (60, 30, 9, 9), ["white"]),
    }
    texts = {text for positive, _, negative in over_seeds(objects) for text in (positive, negative)}
    assert "The woman is blond." in texts
    assert not any("black woman" in text or "woman is black" in text for text in texts)


def test_no_word_is_said_twice_in_a_phrase():
    objects = {"a": thing("paper cup", (1, 1, 9, 9), ["paper", "red"], ("to the left of", "b"))}
    objects["b"] = thing("ring", (50, 1, 9, 9), ["gold"])
    positives = {positive for positive, _, _ in over_seeds(objects)}
    assert "The red paper cup is to the left of the gold ring." in positives
    assert not any("paper paper" in positive for positive in positives)


def test_nouns_and_verbs_agree():
    right, left = "to the right of", "to the left of"
    objects = {
        "a": thing("stars", (10, 10, 10, 10), ["blue"], (left, "b"), (left, "d")),
        "b": thing("ring", (40, 10, 10, 10), ["orange"], (right, "a"), (left, "d")),
        "c": thing("moon", (25, 10, 5, 10), ["wood"], (left, "d"), (left, "b")),
        "d": thing("umbrella", (80, 10, 10, 10), ["metal"], (right, "b"), (right, "a")),
    }
    texts = {text for p, _, n in over_seeds(objects, seeds=150) for text in (p, n)}
    assert {
        "The stars are to the left of the ring.",
        "The ring is to the left of the stars.",
        "The stars are orange.",
        "The moon is made of metal.",
        "There is at least one ring that is orange.",
        "There are no stars that are orange.",
        "There are both blue stars and a wooden moon.",
        "There is both a wooden moon and blue stars.",
        "There is both an orange ring and a metal umbrella.",
        "The wooden moon is to the left of the metal umbrella.",
    } <= texts
    assert not any(bad in text for text in texts for bad in ("stars is", "a orange", "an ring"))


def test_what_is_said_with_a_was_not_said_with_the_before():
    told = 0
    for positive, _, negative in over_seeds(in_a_row(), ("and_logic_rel", "negclip_verb")):
        for text in (positive, negative):
            for name in ("star", "box", "ring", "cross"):
                start, a_thing, _ = text.partition(f" a {name} ")
                told += bool(a_thing)
                assert not a_thing or f"the {name}" not in start, text
    assert told > 100


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


@pytest.mark.parametrize("name", ["a/b", "star\\n", "<b>", "the one with a very long name", "12'"])
def test_names_that_are_not_words_are_not_spoken_of(name):
    objects = {"a": thing(name, (1, 1, 5, 5), ["red"], ("above", "b"))}
    objects["b"] = thing("ring", (1, 50, 5, 5))
    assert not any(name in positive for positive, _, _ in over_seeds(objects, ALL, 3))


def test_names_with_letters_of_any_language_are_spoken_of():
    objects = {"a": thing("café", (1, 1, 5, 5), ["red"]), "b": thing("x", (9, 1, 5, 5), ["blue"])}
    assert "The café is red." in {positive for positive, _, _ in over_seeds(objects, ALL, 3)}
