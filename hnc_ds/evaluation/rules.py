"""What each benchmark's own code calls right, ties included. NumPy only, no torch.

Scores are float32 cosines [I, C] of an item's I images with its C captions. A tie is an equality
that decides: what is right where it counts as wrong, or the reverse. What hangs on a score that is
NaN is wrong: comparisons ask for what is right, never for what is not wrong.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from hnc_ds.evaluation.question import Question


class Outcome(NamedTuple):
    """What became of one item."""

    right: Mapping[str, bool]
    """By metric."""
    tied: bool


class Scores(NamedTuple):
    """Of one item."""

    image_text_IC: np.ndarray
    text_text_CC: np.ndarray
    """Cosines of the captions with each other."""


Rule = Callable[[Question, Scores], Outcome]


def true_beats_false(question: Question, scores: Scores) -> Outcome:
    """Every true caption is more similar to the image than every false one; a tie is wrong.

    Source: SugarCrepe (main_eval.py), VALSE (pairwise accuracy); ARO's VG-Relation and
    VG-Attribution take the argmax of [false, true], which is the same.
    """
    true, false = _split(question, scores.image_text_IC[0])
    return Outcome({"accuracy": bool(true.min() > false.max())}, bool(true.min() == false.max()))


def true_comes_first(question: Question, scores: Scores) -> Outcome:
    """No false caption is more similar than the true one, which is listed first; a tie is right.

    Source: ARO's Order and What'sUp take the argmax of captions of which the first is the true one.
    """
    true, false = _split(question, scores.image_text_IC[0])
    return Outcome({"accuracy": bool(true.min() >= false.max())}, bool(true.min() == false.max()))


def both_ways(question: Question, scores: Scores) -> Outcome:
    """Two images and captions: each image picks its caption (text), each caption its image (image),
    and both (group). A tie is wrong.

    Source: Winoground (Thrush et al. 2022).
    """
    text, image = _each_picks(scores.image_text_IC), _each_picks(scores.image_text_IC.T)
    right = {"text": _lead(*text), "image": _lead(*image), "group": _lead(*text, *image)}
    return Outcome(right, 0 in (*text, *image))


def each_picks_its_own(question: Question, scores: Scores) -> Outcome:
    """The same by BiVLC's names, and what each of the four picks. A tie is wrong.

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
    """The same, but a tie counts as the second image: wrong for the first, right for the second.

    Source: MMVP-VLM (Tong et al. 2024), whose code asks whether the first image has more than half.
    """
    first, second = _each_picks(scores.image_text_IC.T)
    return Outcome({"accuracy": first > 0 and second >= 0}, 0 in (first, second))


def same_meaning(question: Question, scores: Scores) -> Outcome:
    """Two true captions and a false one: both beat it for the image (itt), the first does and the
    second (itt_p1, itt_p2), and they are more similar to each other than either is to it (tot). A
    tie is wrong.

    Source: SugarCrepe++ (Dumpala et al. 2024, VLMs/test_*.py; evaluate_ulms.py for tot).
    """
    itt = true_beats_false(question, scores)
    first, second, false = scores.image_text_IC[0]
    text = scores.text_text_CC
    others = np.max(text[:2, 2])  # NaN if one of them is
    tot, tied = bool(text[0, 1] > others), bool(text[0, 1] == others)
    each = {"itt_p1": bool(first > false), "itt_p2": bool(second > false)}
    return Outcome({"itt": itt.right["accuracy"], "tot": tot, **each}, itt.tied or tied)


def _split(question: Question, score_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the true and of the false captions."""
    is_true_C = np.zeros(len(score_C), dtype=bool)
    is_true_C[question.true_captions()] = True
    return score_C[is_true_C], score_C[~is_true_C]


def _lead(*leads: float) -> bool:
    """Whether all of them are ahead; Python's own min would pass over NaN."""
    return all(lead > 0 for lead in leads)


def _each_picks(score_22: np.ndarray) -> tuple[float, float]:
    """By how much each row's own column is ahead of the other."""
    (own_0, other_0), (other_1, own_1) = score_22.astype(float)
    return float(own_0 - other_0), float(own_1 - other_1)
