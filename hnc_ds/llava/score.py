"""Score answers to free-form benchmarks: results.json, and every answer in *.items.jsonl.

    hnc-ds score --dataset vqav2 --questions Q.json --annotations A.json \\
        --answers answers/trained/answers.jsonl --out results/trained.json
    hnc-ds score --dataset textvqa --annotations TextVQA_0.5.1_val.json --answers ... --out ...
    hnc-ds score --dataset gqa --annotations testdev_balanced_questions.json --answers ... --out ...

No torch here.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import msgspec
import numpy as np

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import ScoreConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.benchmarks import FREE_FORM
from hnc_ds.evaluation.results import ItemsHeader, VqaItem, items_path, write_results
from hnc_ds.evaluation.statistics import Interval, bootstrap_mean, bootstrap_means
from hnc_ds.llava.benchmark_files import (
    READERS,
    AnnotatedQuestion,
    QuestionId,
    llavas_pope_ids,
)
from hnc_ds.llava.predictions import Prediction, check_unique, read_predictions
from hnc_ds.llava.question_scores import (
    BENCHMARK_SCORES,
    check_choices,
    entailed_elsewhere,
    read_choices,
    wrong_answer,
)
from hnc_ds.llava.questions import as_number, is_llavas_file
from hnc_ds.llava.scorers import read_annotations
from hnc_ds.records import Result

VERSION = 1
"""To be raised when the same answers would score differently."""

ANNOTATORS = 10
"""Answers per question in the official scores' definition."""
OF_ANNOTATORS = frozenset({"vqav2", "textvqa", "vizwiz"})

IMAGES = "images"
"""Key of the image folder in the items' header."""


def score(config: ScoreConfig) -> None:
    """Score a file of answers, write results and items, and print a table.

    Raises:
        UserError: A file is missing, broken or of another layout; answers are missing, duplicate
            or of unknown questions; an output cannot be written.
    """
    people = read_annotations(config.dataset, config.annotations, config.questions)
    given = read_predictions(config.answers)
    texts = _matched(config, people, given)
    model = _printable(config.name or given[0].model_id or config.answers.stem)
    items = _items(config, people, [texts.get(one.question_id) for one in people])
    if not items:
        raise UserError(
            f"{config.annotations}: has no question that counts; only balanced ones of GQA do"
        )
    rows = list(_rows(config.dataset, model, items, config.seed))
    folders: dict[str, tuple[str, ...]] = {}
    if config.images is not None:
        folders[IMAGES] = (_printable(str(config.images.resolve())),)
    ocr = given[0].ocr if config.dataset == "textvqa" else ""
    header = ItemsHeader(model=model, seed=config.seed, folders=folders, ocr=ocr)
    write_results(config.out, rows, header, items)
    if config.per_item is not None:
        _write_scores(config.per_item, config.dataset, items)
    what = f"{config.dataset}, OCR tokens: {ocr}" if ocr else config.dataset
    print(f"{model}, {what}\n")
    caveats = _counted(config, people, given, len(texts))
    print("\n".join([_table(config.dataset, rows), *caveats]))
    print(f"wrote {config.out} and {items_path(config.out)}")


def _matched(
    config: ScoreConfig, people: Sequence[AnnotatedQuestion], given: Sequence[Prediction]
) -> dict[QuestionId, str]:
    """Answers by question."""
    known = {one.question_id for one in people}
    ids = _ids(config, people, given)
    if unknown := [one for one in ids if one not in known]:
        raise UserError(
            f"{config.answers}: {counted(len(unknown), 'answer is', 'answers are')} to questions "
            f"that {config.annotations} lacks, the first is {unknown[0]}; take the files of one "
            "split"
        )
    answered = set(ids)
    missing = [one.question_id for one in people if one.question_id not in answered]
    if missing and not config.allow_missing:
        raise UserError(
            f"{config.answers}: {len(missing):,} of {len(known):,} questions are not answered, the "
            f"first is {missing[0]}; answer them, or give --allow-missing to count them as wrong"
        )
    return {number: one.text for number, one in zip(ids, given, strict=True)}


def _ids(
    config: ScoreConfig, people: Sequence[AnnotatedQuestion], given: Sequence[Prediction]
) -> list[QuestionId]:
    """The question of each answer."""
    numbers = all(isinstance(one.question_id, int) for one in given)
    ids: list[QuestionId]
    if config.dataset == "textvqa" and not numbers:
        return _by_image(people, given, config.answers)
    if config.dataset not in READERS:
        ids = [_number(one.question_id, config.answers) for one in given]
    elif (
        config.dataset == "pope"
        and config.questions is not None
        and is_llavas_file(config.questions, config.dataset)
    ):
        ours = llavas_pope_ids(config.questions, people)
        ids = [ours.get(str(one.question_id), one.question_id) for one in given]
    else:
        ids = [str(one.question_id) for one in given]
    check_unique(ids, config.answers)
    return ids


def _number(question_id: int | str, path: Path) -> int:
    number = as_number(question_id)
    if isinstance(number, int):
        return number
    raise UserError(f"{path}: question id '{question_id}' is not a number")


def _by_image(
    people: Sequence[AnnotatedQuestion], given: Sequence[Prediction], path: Path
) -> list[QuestionId]:
    """Question ids of LLaVA's TextVQA answers, whose ids are images'; found by the prompt."""
    waiting: dict[tuple[str, str], list[QuestionId]] = defaultdict(list)
    for one in people:
        waiting[one.image, one.question.lower()].append(one.question_id)
    found = list[QuestionId]()
    for answer in given:
        asked = answer.prompt.split("\n")[0].lower()
        ids = waiting[str(answer.question_id), asked]
        if not ids:
            raise UserError(
                f"{path}: image {answer.question_id} with the question '{asked}' is answered "
                "twice, or is not an annotated question; take the files of one split"
            )
        found.append(ids.pop(0))
    return found


def _items(
    config: ScoreConfig, people: Sequence[AnnotatedQuestion], answers: Sequence[str | None]
) -> list[VqaItem]:
    """The questions that count, with their scores; None for a missing answer, which is wrong."""
    choices = {} if config.choices is None else read_choices(config.choices)
    if config.choices is not None:
        check_choices(people, choices, config.choices)
    scored = [
        wrong_answer(config.dataset, one) if answer is None else answer
        for one, answer in zip(people, answers, strict=True)
    ]
    scores = BENCHMARK_SCORES[config.dataset](people, scored, choices)
    return [
        _item(config.dataset, one, answer or "", own)
        for one, answer, own in zip(people, answers, scores, strict=True)
        if own
    ]


def _item(dataset: str, one: AnnotatedQuestion, answer: str, scores: dict[str, float]) -> VqaItem:
    kinds = {"answer type": one.answer_type, "question type": one.question_type}
    return VqaItem(
        benchmark=dataset,
        question_id=one.question_id,
        image=one.image,
        image_file=one.image_file,
        question=one.question,
        answer=answer,
        people=one.answers,
        scores=scores,
        groups=(*(f"{kind}: {value}" for kind, value in kinds.items() if value), *one.groups),
    )


def _rows(dataset: str, model: str, items: Sequence[VqaItem], seed: int) -> Iterator[Result]:
    """Mean of every score over all questions and each type, with bootstrap intervals over
    images."""
    members: dict[str, list[VqaItem]] = {"all": list(items)}
    for item in items:
        for group in item.groups:
            members.setdefault(group, []).append(item)
    for group in ["all", *sorted(name for name in members if name != "all")]:
        for metric, found in _means(dataset, members[group], seed).items():
            yield Result(model, dataset, VERSION, metric, group, *astuple(found))


def _means(dataset: str, own: Sequence[VqaItem], seed: int) -> Mapping[str, Interval]:
    """The mean of every score over the questions that have it, and of pooled scores."""
    names = list(dict.fromkeys(name for item in own for name in item.scores))
    having = {name: [item for item in own if name in item.scores] for name in names}
    shared = [name for name in names if len(having[name]) == len(own)]
    columns = {name: [item.scores[name] for item in own] for name in shared}
    found = bootstrap_means(columns, np.array([item.image for item in own]), seed=seed)
    apart = {name: (name,) for name in names if name not in columns}
    parts: dict[str, tuple[str, ...]] = {**apart, **FREE_FORM[dataset].pooled}
    for name, pooled in parts.items():
        values = [(item.scores[p], item.image) for p in pooled for item in having.get(p, ())]
        if not values:  # no precision without an answer yes, no recall without a label yes
            continue
        value_N, image_N = (np.array(column) for column in zip(*values, strict=True))
        found[name] = bootstrap_mean(value_N, image_N, seed=seed)
    for name in FREE_FORM[dataset].pooled.keys() & found.keys():
        found[name] = replace(found[name], count=len(own))
    return found


def _write_scores(path: Path, dataset: str, items: Sequence[VqaItem]) -> None:
    scorer = FREE_FORM[dataset].headline
    lines = (
        msgspec.json.encode({"question_id": one.question_id, "score": one.scores[scorer]}) + b"\n"
        for one in items
    )
    with writing(path):
        atomic_write(path, *lines)


def _printable(name: str) -> str:
    """Without surrogates, which undecodable bytes of a command line become."""
    return name.encode(errors="replace").decode()


def _counted(
    config: ScoreConfig,
    people: Sequence[AnnotatedQuestion],
    given: Sequence[Prediction],
    answered: int,
) -> Iterator[str]:
    """A line for each kind of question whose score needs a caveat, or that has none."""
    few = sum(len(one.answers) != ANNOTATORS for one in people)
    counts = (
        ("not answered and counted as wrong", len(people) - answered),
        ("answered without an image", sum(one.margin is None for one in given)),
        (
            f"without {ANNOTATORS} annotators' answers, so that their scores are not official",
            few if config.dataset in OF_ANNOTATORS else 0,
        ),
    )
    for what, count in counts:
        if count:
            yield f"{count:,} {'question is' if count == 1 else 'questions are'} {what}"
    if config.dataset == "gqa":
        yield from _not_scored(config, people)


def _not_scored(config: ScoreConfig, people: Sequence[AnnotatedQuestion]) -> Iterator[str]:
    """GQA's scores for which a file is missing."""
    if elsewhere := entailed_elsewhere(people):
        yield (
            f"no consistency: {config.annotations} lacks {elsewhere:,} questions that its own "
            "entail; answer and give SPLIT_all_questions.json"
        )
    if config.choices is None:
        yield "no validity and plausibility without --choices SPLIT_choices.json"


def _table(dataset: str, rows: Sequence[Result]) -> str:
    """The scores in percent with two decimals, as the official tools print them."""
    known = FREE_FORM[dataset]
    lines = [f"{'scorer':<28}{'score':>8}{'95 % interval':>20}"]
    for row in (row for row in rows if row.group == "all"):
        mark = "  as papers report it" if row.metric == known.headline else ""
        lines.append(f"{_line(row.metric, row)}{mark}")
    for metric in known.by_group or (known.headline,):
        kinds = [r for r in rows if r.metric == metric and r.group.startswith(known.groups)]
        if kinds:
            lines += ["", f"{metric:<28}{'score':>8}{'95 % interval':>20}{'questions':>11}"]
            lines += [f"{_line(row.group, row)}{row.count:>11,}" for row in kinds]
    return "\n".join(lines)


def _line(title: str, row: Result) -> str:
    interval = f"{100 * row.low:.2f} to {100 * row.high:.2f}"
    return f"{title:<28}{100 * row.value:>8.2f}{interval:>20}"
