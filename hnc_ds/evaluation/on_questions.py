"""A model on one released benchmark: every score that its line in question_sets.py names."""

from collections.abc import Callable, Iterator
from dataclasses import astuple

from hnc_ds.config import EvaluateConfig
from hnc_ds.evaluation.ask import Encoded, encode_again, encode_questions, scores_of
from hnc_ds.evaluation.embed import Worse
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.image_files import ImageFiles
from hnc_ds.evaluation.items import AnsweredItem, Coverage, Item
from hnc_ds.evaluation.labels import Row, judge_single_captions
from hnc_ds.evaluation.places import read_places
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.question_sets import QUESTION_SETS, ZERO_SHOT
from hnc_ds.evaluation.robustness import (
    Condition,
    Judged,
    judged_outcomes,
    read_conditions,
    robustness,
)
from hnc_ds.evaluation.rules import Outcome, Rule, Scores
from hnc_ds.evaluation.search import judge_search, search
from hnc_ds.evaluation.summary import summarise
from hnc_ds.evaluation.zero_shot import Classes
from hnc_ds.records import Result

Judge = Callable[[Encoded], dict[str, Judged]]
"""What becomes of each query of a benchmark, by metric."""


def measure_questions(
    encoder: Encoder,
    model: str,
    name: str,
    questions: list[Question],
    files: ImageFiles,
    config: EvaluateConfig,
) -> tuple[list[Result], Coverage, list[Item]]:
    """Rows, what they are of, and an item for each question. A collective.

    Args:
        encoder: Of the model.
        model: What results call it.
        name: Of the benchmark.
        questions: Of the benchmark.
        files: Where pictures are.
        config: Of the evaluation.

    Raises:
        UserError: As ``encode_questions``.
    """
    known, missing = QUESTION_SETS[name], config.allow_missing
    encoded = encode_questions(encoder, questions, files, benchmark=name, allow_missing=missing)
    asked, scores = encoded.questions, scores_of(encoded)
    rows, outcomes = list[Result](), [Outcome({}, False)] * len(asked)
    if known.rule is not None:
        outcomes = list(map(known.rule, asked, scores))
        averages, version = known.averages, known.version
        rows += summarise(name, version, model, asked, outcomes, averages, config.seed, questions)
    rows += [
        Result(model, name, known.version, metric, group, *astuple(interval))
        for metric, group, interval in _beyond(encoder, name, encoded, scores, config)
    ]
    items: list[Item] = [_item(name, *parts) for parts in zip(asked, scores, outcomes, strict=True)]
    return rows, encoded.coverage, items


def _item(name: str, question: Question, scores: Scores, outcome: Outcome) -> AnsweredItem:
    return AnsweredItem(
        benchmark=name,
        id=question.id,
        group=question.group,
        images=tuple(image.title for image in question.images),
        captions=question.captions,
        scores=tuple(tuple(row) for row in scores.image_text_IC.tolist()),
        right=dict(outcome.right),
        tied=outcome.tied,
        tags=question.tags,
        boxes=tuple(image.crop for image in question.images),
    )


def _beyond(
    encoder: Encoder, name: str, encoded: Encoded, scores: list[Scores], config: EvaluateConfig
) -> Iterator[Row]:
    """Scores that are of all questions together, and those on worse pictures."""
    known, seed = QUESTION_SETS[name], config.seed
    judge: Judge = _by_rule(known.rule) if known.rule is not None else _at_threshold
    if known.searches:
        yield from search(encoded, seed)
        judge = judge_search
    if name == ZERO_SHOT:
        classes = Classes(encoder, read_places(config.data)[name])
        yield from classes.classify(encoded, seed)
        judge = classes.judge
    if known.beyond is not None:
        yield from known.beyond(encoded.questions, scores, seed)
    conditions = read_conditions(config.corruptions)
    if conditions and (clean := judge(encoded)):

        def under(condition: Condition) -> dict[str, Judged]:
            return judge(encode_again(encoder, encoded, Worse(*condition, seed)))

        yield from robustness(clean, conditions, under, seed)


def _by_rule(rule: Rule) -> Judge:
    def judge(encoded: Encoded) -> dict[str, Judged]:
        outcomes = list(map(rule, encoded.questions, scores_of(encoded)))
        return judged_outcomes(encoded.questions, outcomes)

    return judge


def _at_threshold(encoded: Encoded) -> dict[str, Judged]:
    return judge_single_captions(encoded.questions, scores_of(encoded))
