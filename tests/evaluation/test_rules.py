"""Each benchmark's own rule, with the ties that decide it; half precision would change them."""

import numpy as np
import pytest

from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.released.rules import (
    EACH_ITS_OWN,
    FIRST,
    GROUP_MATCH,
    ImageRef,
    Question,
    Scores,
)

IMAGE = ImageRef("vg", "1.jpg")
A_HAIR = float(np.nextafter(np.float32(0.3), np.float32(1)))
"""Above 0.3 by one step of float32; the same number in half precision."""


def asked(images: int, captions: int, match: frozenset[tuple[int, int]]) -> Question:
    return Question("q", (IMAGE,) * images, ("c",) * captions, match, "g")


def scores(image_text: list[list[float]], text_text: list[list[float]] | None = None) -> Scores:
    captions = len(image_text[0])
    texts = np.eye(captions) if text_text is None else np.array(text_text)
    return Scores(np.array(image_text, np.float32), texts.astype(np.float32))


ONE = asked(1, 2, FIRST)
TWO = asked(2, 2, EACH_ITS_OWN)
BOTH_TRUE = asked(1, 3, frozenset({(0, 0), (0, 1)}))
FOUR = asked(1, 4, FIRST)


@pytest.mark.parametrize(
    "name",
    [
        "hnc-test",
        "sugarcrepe",
        "aro-relation",
        "aro-attribution",
        "valse",
        "crepe-productivity",
        "crepe-systematicity",
    ],
)
@pytest.mark.parametrize(
    ("row", "right", "tied"),
    [
        ([0.4, 0.3], True, False),
        ([0.3, 0.4], False, False),
        ([0.3, 0.3], False, True),
        ([A_HAIR, 0.3], True, False),
    ],
)
def test_a_tie_of_a_true_and_a_false_caption_is_wrong(
    name: str, row: list[float], right: bool, tied: bool
) -> None:
    found = RELEASED[name].rule(ONE, scores([row]))
    assert found == ({"accuracy": right}, tied)


@pytest.mark.parametrize("name", ["aro-order", "whatsup", "negbench"])
@pytest.mark.parametrize(
    ("row", "right", "tied"),
    [
        ([0.4, 0.1, 0.2, 0.3], True, False),
        ([0.3, 0.1, 0.3, 0.2], True, True),
        ([0.3, 0.1, A_HAIR, 0.2], False, False),
    ],
)
def test_a_tie_with_the_true_caption_that_comes_first_is_right(
    name: str, row: list[float], right: bool, tied: bool
) -> None:
    found = RELEASED[name].rule(FOUR, scores([row]))
    assert found == ({"accuracy": right}, tied)
    assert right == (int(np.argmax(np.array(row, np.float32))) == 0)  # as their code has it


@pytest.mark.parametrize(
    ("image_text", "text", "image", "match", "tied"),
    [
        ([[0.4, 0.1], [0.2, 0.3]], True, True, True, False),
        ([[0.4, 0.3], [0.2, 0.3]], True, False, True, True),  # caption 1 ties between the images
        ([[0.3, 0.3], [0.2, 0.4]], False, True, True, True),  # image 0 ties between the captions
        ([[0.2, 0.1], [0.4, 0.75]], True, False, True, False),
        ([[0.5, 0.3], [0.25, 0.125]], False, False, True, False),  # .625 beats .55
        ([[0.5, 0.125], [0.75, 0.375]], False, False, False, True),  # .875 each
        ([[0.1, 0.2], [0.2, 0.1]], False, False, False, False),
    ],
)
@pytest.mark.parametrize("name", ["winoground", "eqben"])
def test_winoground_scores_are_strict_both_ways(
    name: str, image_text: list[list[float]], text: bool, image: bool, match: bool, tied: bool
) -> None:
    found = RELEASED[name].rule(TWO, scores(image_text))
    right = {"text": text, "image": image, "group": text and image, GROUP_MATCH: match}
    assert found == (right, tied)


@pytest.mark.parametrize(
    ("image_text", "cola", "mmvp", "tied"),
    [
        ([[0.4, 0.1], [0.2, 0.3]], True, True, False),
        ([[0.3, 0.1], [0.3, 0.4]], False, False, True),  # the first statement ties
        ([[0.4, 0.3], [0.2, 0.3]], False, True, True),  # the second one does
        ([[0.4, A_HAIR], [0.2, 0.3]], False, False, False),
    ],
)
def test_a_tie_of_images_is_wrong_in_cola_and_the_second_image_in_mmvp(
    image_text: list[list[float]], cola: bool, mmvp: bool, tied: bool
) -> None:
    asked_of = scores(image_text)
    assert RELEASED["cola"].rule(TWO, asked_of) == ({"accuracy": cola}, tied)
    one, other = image_text
    right = {"accuracy": mmvp, GROUP_MATCH: one[0] + other[1] > one[1] + other[0]}
    assert RELEASED["mmvp"].rule(TWO, asked_of) == (right, tied)


@pytest.mark.parametrize(
    ("own", "other", "right", "tied"),
    [(0.4, 0.3, True, False), (0.3, 0.3, False, True), (0.3, A_HAIR, False, False)],
)
def test_a_sentence_picks_its_image(own: float, other: float, right: bool, tied: bool) -> None:
    found = RELEASED["svo"].rule(asked(2, 1, FIRST), scores([[own], [other]]))
    assert found == ({"accuracy": right}, tied)


@pytest.mark.parametrize(
    ("row", "texts", "itt", "tot", "tied"),
    [
        ([0.4, 0.5, 0.3], (0.9, 0.8, 0.7), True, True, False),
        ([0.4, 0.3, 0.3], (0.9, 0.8, 0.7), False, True, True),
        ([0.4, 0.5, 0.3], (0.8, 0.8, 0.7), True, False, True),
        ([0.2, 0.5, 0.3], (0.7, 0.6, 0.8), False, False, False),
    ],
)
def test_sugarcrepe_plus_plus_asks_for_both_true_captions_and_for_their_likeness(
    row: list[float], texts: tuple[float, float, float], itt: bool, tot: bool, tied: bool
) -> None:
    """``texts``: cosines of the true captions, and of each with the false one."""
    both, first, second = texts
    matrix = [[1, both, first], [both, 1, second], [first, second, 1]]
    found = RELEASED["sugarcrepe++"].rule(BOTH_TRUE, scores([row], matrix))
    each = {f"itt_p{n + 1}": np.float32(row[n]) > np.float32(row[2]) for n in (0, 1)}
    assert found == ({"itt": itt, "tot": tot, **each}, tied)


def test_a_model_that_compares_no_captions_has_the_scores_of_images_with_captions() -> None:
    row = np.array([[0.3, 0.2, 0.1]], np.float32)
    found = RELEASED["sugarcrepe++"].rule(BOTH_TRUE, Scores(row, None))
    assert found == ({"itt": True, "itt_p1": True, "itt_p2": True}, False)
