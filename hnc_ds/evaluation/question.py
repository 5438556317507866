"""What a benchmark asks, in one form for all: images, captions, and which belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class ImageRef(NamedTuple):
    """A picture by its name in a collection that the user has; ``--images`` says where that is."""

    source: str
    """A key of SOURCES in image_files.py: coco2017, vg, ..."""
    name: str
    """File name in the collection, as the benchmark has it."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels; cut before the model's own view of a picture."""

    @property
    def title(self) -> str:
        """SOURCE/NAME."""
        return f"{self.source}/{self.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark."""

    id: str
    """FILE/KEY as the release has them; no two alike in a benchmark."""
    images: tuple[ImageRef, ...]
    captions: tuple[str, ...]
    """Verbatim."""
    match: frozenset[tuple[int, int]]
    """(image, caption) by position that belong together."""
    group: str
    """Category, relation or type."""
    tags: tuple[str, ...] = ()
    """Other groups that it counts for, which may overlap, and what is broken in it."""

    def true_captions(self, image: int = 0) -> list[int]:
        """Positions of the captions that are true of an image."""
        return [caption for i, caption in sorted(self.match) if i == image]


IDENTICAL = "identical captions"
"""Tag of an item whose true and false caption are one text: nobody can answer it."""

DEV = "dev"
"""Tag of a question by which a threshold is chosen: it is in no score."""

FIRST = frozenset({(0, 0)})
"""One image, and its first caption is the true one."""

EACH_ITS_OWN = frozenset({(0, 0), (1, 1)})
"""Two images with a caption each."""


def choice(
    id: str, image: ImageRef, true: str, false: str, group: str, tags: tuple[str, ...] = ()
) -> Question:
    """One image, a true and a false caption."""
    broken = (IDENTICAL,) if true == false else ()
    return Question(id, (image,), (true, false), FIRST, group, (*tags, *broken))


def first_images(questions: Sequence[Question]) -> np.ndarray:
    """What questions of one picture have in common: the title of their first one."""
    return np.array([question.images[0].title for question in questions])
