"""THE TABLE of scores by benchmark: every question's, from all answers of a model.

A score that a question does not have is left out: GQA's consistency of a question answered wrongly,
POPE's precision of an answer no. So each row of the results is a mean over the questions that have
the score. Questions of a pair or group share its score. No torch here.

Sources: eval.py of GQA (https://cs.stanford.edu/people/dorarad/gqa/evaluate.html), after
convert_gqa_for_eval.py of haotian-liu/LLaVA; evaluate.py of AoiDragon/POPE; naturalbench_vqa.py of
Baiqi-Li/NaturalBench; gpt_grader.py of tsb0601/MMVP (its pairs; a rule in place of GPT-4);
convert_vizwiz_for_submission.py of haotian-liu/LLaVA.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import msgspec

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import read_json
from hnc_ds.llava.benchmark_files import AnnotatedQuestion, GqaQuestion
from hnc_ds.llava.scorers import SCORERS, normalise_m4c, vqa_official

Scores = dict[str, float]


class Choices(msgspec.Struct, frozen=True):
    """Answers that GQA's file of choices has for a question."""

    valid: frozenset[str]
    plausible: frozenset[str]


def read_choices(path: Path) -> dict[str, Choices]:
    """GQA's choices, {ID: {valid, plausible}}. Raises UserError as ``read_json``."""
    return read_json(path, dict[str, Choices], "GQA's choices")


def of_annotators(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Agreement with several annotators' answers, by every scorer."""
    del choices
    return [
        {name: scorer(answer, one.answers) for name, scorer in SCORERS.items()}
        for one, answer in zip(annotated, answers, strict=True)
    ]


SUBMITTED = "vqa_submitted"


def vizwiz(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """As ``of_annotators``, and the official score of answers that are normalized as those that
    LLaVA submits: the official code normalizes nothing where all annotators agree, and LLaVA
    answers 'Unanswerable' where they say 'unanswerable'."""
    known = of_annotators(annotated, answers, choices)
    return [
        {SUBMITTED: vqa_official(normalise_m4c(answer), one.answers), **scores}
        for one, answer, scores in zip(annotated, answers, known, strict=True)
    ]


COMMON = frozenset({"color", "material", "shape"})
"""Valid and plausible answers to what two things have in common, whatever the file says."""


def gqa(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Accuracy, validity, plausibility and consistency of the balanced questions.

    Answers are compared in lower case without periods at the end, as LLaVA converts them. The
    consistency of a question that is answered right is the accuracy on those that it entails.
    """
    questions = [one for one in annotated if isinstance(one, GqaQuestion)]
    given = [answer.rstrip(".").lower() for answer in answers]
    pairs = list(zip(questions, given, strict=True))
    right = {str(one.question_id): answer == one.answers[0] for one, answer in pairs}
    consistent = not entailed_elsewhere(annotated)
    return [_gqa_scores(one, answer, right, choices, consistent) for one, answer in pairs]


def _gqa_scores(
    one: GqaQuestion,
    answer: str,
    right: Mapping[str, bool],
    choices: Mapping[str, Choices],
    consistent: bool,
) -> Scores:
    number = str(one.question_id)
    if not one.balanced:
        return {}
    scores = {"accuracy": float(right[number])}
    if choices:
        own = choices[number]
        scores["validity"] = float(answer in (COMMON if one.common else own.valid))
        scores["plausibility"] = float(answer in (COMMON if one.common else own.plausible))
    if consistent and right[number] and one.entailed:
        scores["consistency"] = sum(right[e] for e in one.entailed) / len(one.entailed)
    return scores


def entailed_elsewhere(annotated: Sequence[AnnotatedQuestion]) -> int:
    """How many questions of GQA are entailed by balanced ones and not in the file; consistency
    needs all."""
    known = {str(one.question_id) for one in annotated}
    return len(
        {
            number
            for one in annotated
            if isinstance(one, GqaQuestion) and one.balanced
            for number in one.entailed
            if number not in known
        }
    )


def check_choices(
    annotated: Sequence[AnnotatedQuestion], choices: Mapping[str, Choices], path: Path
) -> None:
    """Raise UserError where a balanced question has no choices."""
    for one in annotated:
        balanced = isinstance(one, GqaQuestion) and one.balanced
        if balanced and str(one.question_id) not in choices:
            raise UserError(
                f"{path}: has no choices of question {one.question_id}; take the files of one split"
            )


NO_WORDS = frozenset({"No", "not", "no"})


def says_yes(answer: str) -> bool:
    """Whether POPE counts an answer as yes: unless its first sentence has No, not or no as a
    word between single blanks, commas removed. An empty answer is yes."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return NO_WORDS.isdisjoint(words)


def wrong_answer(dataset: str, one: AnnotatedQuestion) -> str:
    """An answer that is wrong, in place of a missing one: the empty one, but of POPE, where that
    is yes."""
    if dataset != "pope":
        return ""
    return "no" if one.answers[0] == "yes" else "yes"


def pope(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Accuracy and the share of yes; precision of answers yes, and recall of questions whose answer
    is yes, whose pooled mean is F1."""
    del choices
    found = list[Scores]()
    for one, answer in zip(annotated, answers, strict=True):
        yes, label = says_yes(answer), one.answers[0] == "yes"
        scores = {"accuracy": float(yes == label), "yes_ratio": float(yes)}
        found.append(
            scores
            | ({"precision": float(label)} if yes else {})
            | ({"recall": float(yes)} if label else {})
        )
    return found


def first_choice(answer: str, first: str, second: str) -> str | None:
    """Which of two words an answer has, upper or lower case; the earlier of both, None of
    neither."""
    found = re.search(rf"\b({re.escape(first)}|{re.escape(second)})\b", answer, re.IGNORECASE)
    return found[1].lower() if found else None


def _is_right(one: AnnotatedQuestion, answer: str) -> bool:
    right = one.answers[0].lower()
    words = ("a", "b") if right in ("a", "b") else ("yes", "no")
    return first_choice(answer, *words) == right


def vsr(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Accuracy; an answer with neither yes nor no is wrong."""
    del choices
    return [
        {"accuracy": float(_is_right(one, answer))}
        for one, answer in zip(annotated, answers, strict=True)
    ]


def mmvp(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Accuracy, and whether both questions of the pair are right."""
    scores = vsr(annotated, answers, choices)
    return _with_all(scores, "pair_accuracy", [one.image for one in annotated])


def naturalbench(
    annotated: Sequence[AnnotatedQuestion], answers: Sequence[str], choices: Mapping[str, Choices]
) -> list[Scores]:
    """Accuracy, and whether a question is right on both images, an image with both questions, and
    all four of the group."""
    scores = vsr(annotated, answers, choices)
    places = [str(one.question_id).rpartition("/")[2].split("_") for one in annotated]
    groups = [one.image for one in annotated]
    for side, name in enumerate(("question_accuracy", "image_accuracy")):
        keys = [(group, place[side]) for group, place in zip(groups, places, strict=True)]
        scores = _with_all(scores, name, keys)
    return _with_all(scores, "group_accuracy", groups)


def _with_all(scores: Sequence[Scores], name: str, keys: Sequence[Hashable]) -> list[Scores]:
    """A further score: whether all questions of the same key are right."""
    right: dict[Hashable, list[float]] = defaultdict(list)
    for key, own in zip(keys, scores, strict=True):
        right[key].append(own["accuracy"])
    return [own | {name: min(right[key])} for key, own in zip(keys, scores, strict=True)]


BenchmarkScores = Callable[
    [Sequence[AnnotatedQuestion], Sequence[str], Mapping[str, Choices]], list[Scores]
]
"""Takes all questions, their answers, and GQA's choices by question if there are any."""

BENCHMARK_SCORES: Mapping[str, BenchmarkScores] = {
    "vqav2": of_annotators,
    "textvqa": of_annotators,
    "gqa": gqa,
    "pope": pope,
    "vizwiz": vizwiz,
    "mmvp-vqa": mmvp,
    "naturalbench": naturalbench,
    "vsr-vqa": vsr,
}
"""By name in FREE_FORM; a question without scores does not count."""
