"""Which questions are answered together. No torch here."""

from collections.abc import Sequence

from hnc_ds.llava.questions import VqaQuestion

BUCKET = 16
"""Characters: images whose longest questions fall into one bucket are alike in length."""

MOST_IMAGES = 32
"""Of a batch: more make nothing faster, as an image has hundreds of tokens, and take memory."""


def batches(asked: Sequence[VqaQuestion], size: int) -> list[list[VqaQuestion]]:
    """Batches in which the questions of an image stand together.

    Beside them stand images with as many questions, of like length: a batch has as many slots for
    each image as any of them has questions, and as many tokens for each question as the longest.
    Depends on nothing but the questions and the size, so that every process finds the same.

    Args:
        asked: All questions, those that are answered already too.
        size: Most slots of a batch, and so most questions.
    """
    found: list[list[VqaQuestion]] = []
    images = 0  # of the last batch
    for own in sorted(_of_one_image(asked, size), key=_shape):
        images += 1
        if not found or images * len(own) > size or images > MOST_IMAGES:
            found.append([])
            images = 1
        found[-1] += own
    return found


def _of_one_image(asked: Sequence[VqaQuestion], most: int) -> list[list[VqaQuestion]]:
    of_image: dict[str, list[VqaQuestion]] = {}
    for question in asked:
        of_image.setdefault(question.image, []).append(question)
    return [
        own[start : start + most] for own in of_image.values() for start in range(0, len(own), most)
    ]


def _shape(own: Sequence[VqaQuestion]) -> tuple[int, int]:
    """Lengths rise and fall in turn, so that those where the number changes are alike."""
    length = max(len(question.text) for question in own) // BUCKET
    return len(own), length if len(own) % 2 else -length
