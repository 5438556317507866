"""Questions of all benchmarks in one form, and the rules by which they are right.

A question has images, captions, and which of them match. Its scores are float32 cosines [I, C] of
its I images with its C captions. A tie is an equality that decides the outcome. Comparisons are
written so that NaN scores are wrong. Rules are those of each benchmark's own code. NumPy only, no
torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class ImageRef(NamedTuple):
    """An image by its name in a collection; ``--images`` names the folder of the collection."""

    source: str
    """A key of SOURCES in images.py: coco2017, vg, ..."""
    name: str
    """File name in the collection, as in the benchmark."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels; applied before the model's preprocessing."""

    @property
    def title(self) -> str:
        """SOURCE/NAME."""
        return f"{self.source}/{self.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark."""

    id: str
    """FILE/KEY as in the release; unique in a benchmark."""
    images: tuple[ImageRef, ...]
    captions: tuple[str, ...]
    """Verbatim."""
    match: frozenset[tuple[int, int]]
    """Positions (image, caption) that match."""
    group: str
    """Category, relation or type."""
    tags: tuple[str, ...] = ()
    """Further groups, which may overlap, and defects."""

    def true_captions(self, image: int = 0) -> list[int]:
        """Positions of the captions that match an image."""
        return [caption for i, caption in sorted(self.match) if i == image]


IDENTICAL = "identical captions"
"""Tag of a question whose true and false captions are the same text."""

DEV = "dev"
"""Tag of a question that chooses a threshold and is in no score."""

FIRST = frozenset({(0, 0)})
"""One image that matches the first caption."""

EACH_ITS_OWN = frozenset({(0, 0), (1, 1)})
"""Two images that match a caption each."""


def choice(
    id: str, image: ImageRef, true: str, false: str, group: str, tags: tuple[str, ...] = ()
) -> Question:
    """One image, a true and a false caption."""
    broken = (IDENTICAL,) if true == false else ()
    return Question(id, (image,), (true, false), FIRST, group, (*tags, *broken))


def first_images(questions: Sequence[Question]) -> np.ndarray:
    """Title of the first image of each question, by which questions are clustered."""
    return np.array([question.images[0].title for question in questions])


class Outcome(NamedTuple):
    """Outcome of one question."""

    right: Mapping[str, bool]
    """By metric."""
    tied: bool


class Scores(NamedTuple):
    """Scores of one question; larger is more similar."""

    image_text_IC: np.ndarray
    text_text_CC: np.ndarray | None
    """Captions with each other; None if the model compares none."""
    thresholds: Mapping[str, float] = MappingProxyType({})
    """Score from which on a caption counts as true, by metric."""


Rule = Callable[[Question, Scores], Outcome]


def true_beats_false(question: Question, scores: Scores) -> Outcome:
    """Every true caption is more similar to the image than every false one; a tie is wrong.

    Source: SugarCrepe (main_eval.py), VALSE (pairwise accuracy); ARO's VG-Relation and
    VG-Attribution (argmax of [false, true], which is equivalent).
    """
    true, false = _split(question, scores.image_text_IC[0])
    return Outcome({"accuracy": bool(true.min() > false.max())}, bool(true.min() == false.max()))


def true_comes_first(question: Question, scores: Scores) -> Outcome:
    """No false caption is more similar than the true one, which comes first; a tie is right.

    Source: ARO's Order, What'sUp and NegBench (argmax of captions, the first of which is true).
    """
    true, false = _split(question, scores.image_text_IC[0])
    return Outcome({"accuracy": bool(true.min() >= false.max())}, bool(true.min() == false.max()))


def both_ways(question: Question, scores: Scores) -> Outcome:
    """Two images and captions: each image picks its caption (text), each caption its image (image),
    both (group), and ``_match``. A tie is wrong.

    Source: Winoground (Thrush et al. 2022).
    """
    text, image = _each_picks(scores.image_text_IC), _each_picks(scores.image_text_IC.T)
    match = _match(scores.image_text_IC)
    right = {"text": _lead(*text), "image": _lead(*image), "group": _lead(*text, *image)}
    return Outcome({**right, GROUP_MATCH: match > 0}, 0 in (*text, *image, match))


def each_picks_its_own(question: Question, scores: Scores) -> Outcome:
    """``both_ways`` by BiVLC's names, and the choices of each image and caption. A tie is wrong.

    Source: BiVLC (Miranda et al. 2024), src/CLIP_fine_tuning/CLIP_utils.py.
    """
    text, image = _each_picks(scores.image_text_IC), _each_picks(scores.image_text_IC.T)
    leads = {
        "I2T": text,
        "T2I": image,
        "group": (*text, *image),
        **{name: (lead,) for name, lead in zip(("Ipos_2T", "Ineg_2T"), text, strict=True)},
        **{name: (lead,) for name, lead in zip(("Tpos_2I", "Tneg_2I"), image, strict=True)},
    }
    right = {name: _lead(*own) for name, own in leads.items()}
    return Outcome(right, 0 in (*text, *image))


def captions_pick_images(question: Question, scores: Scores) -> Outcome:
    """Each of two captions is more similar to its own image than to the other; a tie is wrong.

    Source: Cola (scripts/eval.py, ColaMultiObjAcc).
    """
    leads = _each_picks(scores.image_text_IC.T)
    return Outcome({"accuracy": _lead(*leads)}, 0 in leads)


def statements_pick_images(question: Question, scores: Scores) -> Outcome:
    """As ``captions_pick_images``, but a tie counts as the second image: wrong for the first
    caption, right for the second. And ``_match``.

    Source: MMVP-VLM (Tong et al. 2024), whose code tests if the first image has more than half.
    """
    first, second = _each_picks(scores.image_text_IC.T)
    match = _match(scores.image_text_IC)
    right = {"accuracy": first > 0 and second >= 0, GROUP_MATCH: match > 0}
    return Outcome(right, 0 in (first, second, match))


def caption_picks_image(question: Question, scores: Scores) -> Outcome:
    """The caption is more similar to the first of two images than to the second; a tie is wrong.

    Source: SVO-Probes' pairs, as compared for models without a threshold (Oh et al. 2024, vl_compo,
    arXiv 2406.09388).
    """
    own, other = scores.image_text_IC[:, 0]
    return Outcome({"accuracy": bool(own > other)}, bool(own == other))


def same_meaning(question: Question, scores: Scores) -> Outcome:
    """Two true captions and a false one: both beat it for the image (itt), the first does and the
    second (itt_p1, itt_p2), and they are more similar to each other than either is to it (tot). A
    tie is wrong.

    Source: SugarCrepe++ (Dumpala et al. 2024, VLMs/test_*.py; evaluate_ulms.py for tot).
    """
    itt = true_beats_false(question, scores)
    first, second, false = scores.image_text_IC[0]
    each = {"itt_p1": bool(first > false), "itt_p2": bool(second > false)}
    if (text := scores.text_text_CC) is None:
        return Outcome({"itt": itt.right["accuracy"], **each}, itt.tied)
    others = np.max(text[:2, 2])  # NaN if either is
    tot, tied = bool(text[0, 1] > others), bool(text[0, 1] == others)
    return Outcome({"itt": itt.right["accuracy"], "tot": tot, **each}, itt.tied or tied)


def _split(question: Question, score_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the true and of the false captions."""
    is_true_C = np.zeros(len(score_C), dtype=bool)
    is_true_C[question.true_captions()] = True
    return score_C[is_true_C], score_C[~is_true_C]


GROUP_MATCH = "group_match"


def _match(score_22: np.ndarray) -> float:
    """Lead of the right assignment of captions to images over the other one, in the sum of their
    scores.

    Source: GroupMatch (Zhu, Zhang and Tang 2025, arXiv 2510.07632;
    https://github.com/yinglunz/test-time-matching, evaluate.py), where a tie is wrong.
    """
    (s00, s01), (s10, s11) = score_22.astype(float)
    return float(s00 + s11 - s01 - s10)


def _lead(*leads: float) -> bool:
    """Whether all are ahead; min() would ignore NaN."""
    return all(lead > 0 for lead in leads)


def _each_picks(score_22: np.ndarray) -> tuple[float, float]:
    """Lead of each row's own column over the other."""
    (own_0, other_0), (other_1, own_1) = score_22.astype(float)
    return float(own_0 - other_0), float(own_1 - other_1)
