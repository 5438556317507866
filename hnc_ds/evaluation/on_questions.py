"""A model on one released benchmark: every score that its line in question_sets.py names."""

from collections.abc import Iterator
from dataclasses import astuple

import torch

from hnc_ds.config import EvaluateConfig
from hnc_ds.evaluation.ask import Encoded, encode_again, encode_questions, scores_of
from hnc_ds.evaluation.embed import Worse
from hnc_ds.evaluation.image_files import ImageFiles
from hnc_ds.evaluation.items import AnsweredItem, Coverage, Item
from hnc_ds.evaluation.labels import Row
from hnc_ds.evaluation.models import End
from hnc_ds.evaluation.places import read_places
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.question_sets import QUESTION_SETS, ZERO_SHOT
from hnc_ds.evaluation.robustness import Condition, read_conditions, robustness
from hnc_ds.evaluation.rules import Outcome, Rule, Scores
from hnc_ds.evaluation.search import search
from hnc_ds.evaluation.summary import summarise
from hnc_ds.evaluation.zero_shot import classify
from hnc_ds.records import Result


def measure_questions(
    model: End,
    name: str,
    questions: list[Question],
    files: ImageFiles,
    device: torch.device,
    config: EvaluateConfig,
) -> tuple[list[Result], Coverage, list[Item]]:
    """Rows, what they are of, and an item for each question. A collective.

    Raises:
        UserError: As ``encode_questions``.
    """
    known = QUESTION_SETS[name]
    encoded = encode_questions(
        model.model,
        questions,
        files,
        device,
        benchmark=name,
        allow_missing=config.allow_missing,
        batch=config.batch,
        workers=config.workers,
    )
    asked, scores = encoded.questions, scores_of(encoded)
    rows, outcomes = list[Result](), [Outcome({}, False)] * len(asked)
    if known.rule is not None:
        outcomes = list(map(known.rule, asked, scores))
        averages, version = known.averages, known.version
        rows += summarise(name, version, model.name, asked, outcomes, averages, config.seed)
    rows += [
        Result(model.name, name, known.version, metric, group, *astuple(interval))
        for metric, group, interval in _beyond(model, name, encoded, scores, outcomes, config)
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
    )


def _beyond(
    model: End,
    name: str,
    encoded: Encoded,
    scores: list[Scores],
    clean: list[Outcome],
    config: EvaluateConfig,
) -> Iterator[Row]:
    """Scores that are of all questions together, and those on worse pictures."""
    known, seed = QUESTION_SETS[name], config.seed
    conditions = read_conditions(config.corruptions)
    if known.rule is not None and conditions:
        under = _Worsened(model, encoded, known.rule, config)
        yield from robustness(encoded.questions, clean, conditions, under, seed)
    if known.searches:
        yield from search(encoded, seed)
    if name == ZERO_SHOT:
        yield from classify(model.model, encoded, read_places(config.data)[name], seed)
    if known.beyond is not None:
        yield from known.beyond(encoded.questions, scores, seed)


class _Worsened:
    """What becomes of questions under a condition."""

    def __init__(self, model: End, encoded: Encoded, rule: Rule, config: EvaluateConfig) -> None:
        self._model, self._encoded, self._rule, self._config = model, encoded, rule, config

    def __call__(self, condition: Condition) -> list[Outcome]:
        config, device = self._config, self._encoded.image_ND.device
        again = encode_again(
            self._model.model,
            self._encoded,
            Worse(*condition, config.seed),
            device,
            batch=config.batch,
            workers=config.workers,
        )
        return list(map(self._rule, again.questions, scores_of(again)))
