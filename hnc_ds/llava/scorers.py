"""THE TABLE of scorers: an answer against ten people's, from 0 to 1. No torch here.

Source: Antol et al. 2015 and vqaEval.py of VQA, revision a013f00; TextVQAAccuracyEvaluator and
STVQAAccuracyEvaluator in MMF's m4c_evaluators.py.
"""

from collections.abc import Callable, Mapping, Sequence

from hnc_ds.llava.answer_text import clean, normalise, normalise_m4c

Scorer = Callable[[str, Sequence[str]], float]
"""Of an answer and those of people."""


def vqa_official(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy as the official evaluation computes it: where all people gave one answer,
    nothing is normalised, and 'Yes' is not 'yes'."""
    said, told = clean(answer), [clean(one) for one in people]
    if len(set(told)) > 1:
        said, told = normalise(said), [normalise(one) for one in told]
    return leave_one_out(told.count(said), len(told))


def vqa_always_normalised(answer: str, people: Sequence[str]) -> float:
    """The same with answers always normalised, as several tools have it."""
    told = [normalise(clean(one)) for one in people]
    return leave_one_out(told.count(normalise(clean(answer))), len(told))


def vqa_min3(answer: str, people: Sequence[str]) -> float:
    """The plain formula min(votes / 3, 1), without leaving one out, of normalised answers."""
    told = [normalise(clean(one)) for one in people]
    return min(told.count(normalise(clean(answer))) / 3, 1.0)


def m4c(answer: str, people: Sequence[str]) -> float:
    """TextVQA's accuracy: M4C's processing, then one left out in turn."""
    told = [normalise_m4c(one) for one in people]
    return leave_one_out(told.count(normalise_m4c(answer)), len(told))


def exact_match(answer: str, people: Sequence[str]) -> float:
    """1 if anybody gave this answer, after M4C's processing (STVQAAccuracyEvaluator)."""
    return float(normalise_m4c(answer) in {normalise_m4c(one) for one in people})


def leave_one_out(votes: int, people: int) -> float:
    """Mean over the people, each left out in turn, of min(votes of the others / 3, 1): of ten 0,
    0.3, 0.6, 0.9, and 1 from four votes on."""
    if not people:
        return 0.0
    among, beside = (min(n / 3, 1.0) for n in (votes - 1, votes))
    return (votes * among + (people - votes) * beside) / people


SCORERS: Mapping[str, Scorer] = {
    "vqa_official": vqa_official,
    "vqa_always_normalised": vqa_always_normalised,
    "vqa_min3": vqa_min3,
    "m4c": m4c,
    "exact_match": exact_match,
}
