"""Which questions are answered together. No torch here."""

from collections.abc import Sequence

from hnc_ds.llava.questions import VqaQuestion

BUCKET = 64
"""Characters: questions whose longest text falls into one bucket are alike in length."""


def batches(asked: Sequence[VqaQuestion], size: int) -> list[list[VqaQuestion]]:
    """Batches in which the questions of a picture stand together, beside others of like length.

    Depends on nothing but the questions and the size, so that every process finds the same.

    Args:
        asked: All questions, those that are answered already too.
        size: Most questions of a batch.
    """
    of_image: dict[str, list[VqaQuestion]] = {}
    for question in asked:
        of_image.setdefault(question.image, []).append(question)
    ordered = sorted(of_image.values(), key=lambda own: max(len(q.text) for q in own) // BUCKET)
    found: list[list[VqaQuestion]] = []
    for own in ordered:
        for start in range(0, len(own), size):
            piece = own[start : start + size]
            if not found or len(found[-1]) + len(piece) > size:
                found.append([])
            found[-1] += piece
    return found
