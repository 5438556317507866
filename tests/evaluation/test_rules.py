"""Each benchmark's own rule, with the ties that decide it; half precision would change them."""

import numpy as np
import pytest

from hnc_ds.evaluation.question import EACH_ITS_OWN, FIRST, ImageRef, Question
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.evaluation.rules import Scores

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
    "name", ["hnc-test", "sugarcrepe", "aro-relation", "aro-attribution", "valse"]
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
    found = QUESTION_SETS[name].rule(ONE, scores([row]))
    assert found == ({"accuracy": right}, tied)


@pytest.mark.parametrize("name", ["aro-order", "whatsup"])
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
    found = QUESTION_SETS[name].rule(FOUR, scores([row]))
    assert found == ({"accuracy": right}, tied)
    assert right == (int(np.argmax(np.array(row, np.float32))) == 0)  # as their code has it


@pytest.mark.parametrize(
    ("image_text", "text", "image", "tied"),
    [
        ([[0.4, 0.1], [0.2, 0.3]], True, True, False),
        ([[0.4, 0.3], [0.2, 0.3]], True, False, True),  # caption 1 ties between the images
        ([[0.3, 0.3], [0.2, 0.4]], False, True, True),  # image 0 ties between the captions
        ([[0.2, 0.1], [0.4, 0.5]], True, False, False),
        ([[0.1, 0.2], [0.2, 0.1]], False, False, False),
    ],
)
def test_winoground_scores_are_strict_both_ways(
    image_text: list[list[float]], text: bool, image: bool, tied: bool
) -> None:
    found = QUESTION_SETS["winoground"].rule(TWO, scores(image_text))
    assert found == ({"text": text, "image": image, "group": text and image}, tied)


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
    assert QUESTION_SETS["cola"].rule(TWO, asked_of) == ({"accuracy": cola}, tied)
    assert QUESTION_SETS["mmvp"].rule(TWO, asked_of) == ({"accuracy": mmvp}, tied)


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
    found = QUESTION_SETS["sugarcrepe++"].rule(BOTH_TRUE, scores([row], matrix))
    each = {f"itt_p{n + 1}": np.float32(row[n]) > np.float32(row[2]) for n in (0, 1)}
    assert found == ({"itt": itt, "tot": tot, **each}, tied)
