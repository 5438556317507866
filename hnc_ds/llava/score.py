"""Score answers to VQA v2.0 or TextVQA: results.json, and every answer in *.items.jsonl.

    hnc-ds score --dataset vqav2 --questions Q.json --annotations A.json \\
        --answers answers/trained/answers.jsonl --out results/trained.json
    hnc-ds score --dataset textvqa --annotations TextVQA_0.5.1_val.json --answers ... --out ...

No torch here.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import msgspec
import numpy as np

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import ScoreConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.benchmarks import FREE_FORM
from hnc_ds.evaluation.results import ItemsHeader, VqaItem, items_path, write_results
from hnc_ds.evaluation.statistics import bootstrap_means
from hnc_ds.llava.predictions import Prediction, check_unique, read_predictions
from hnc_ds.llava.questions import as_number
from hnc_ds.llava.scorers import SCORERS, AnnotatedQuestion, read_annotations
from hnc_ds.records import Result

VERSION = 1
"""To be raised when the same answers would score differently."""

ANNOTATORS = 10
"""Answers per question in the official scores' definition."""

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
    items = [_item(config.dataset, one, texts.get(one.question_id, "")) for one in people]
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
    print("\n".join([_table(config.dataset, rows), *_counted(people, given, len(texts))]))
    print(f"wrote {config.out} and {items_path(config.out)}")


def _matched(
    config: ScoreConfig, people: Sequence[AnnotatedQuestion], given: Sequence[Prediction]
) -> dict[int, str]:
    """Answers by question."""
    known = {one.question_id for one in people}
    by_id = all(isinstance(one.question_id, int) for one in given)
    if by_id or config.dataset == "vqav2":
        ids = [_number(one.question_id, config.answers) for one in given]
        check_unique(ids, config.answers)
    else:
        ids = _by_image(people, given, config.answers)
    if unknown := [one for one in ids if one not in known]:
        raise UserError(
            f"{config.answers}: {counted(len(unknown), 'answer is', 'answers are')} to questions "
            f"that {config.annotations} lacks, the first is {unknown[0]}; take the files of one "
            "split"
        )
    missing = known - set(ids)
    if missing and not config.allow_missing:
        raise UserError(
            f"{config.answers}: {len(missing):,} of {len(known):,} questions are not answered, the "
            f"first is {min(missing)}; answer them, or give --allow-missing to count them as wrong"
        )
    return {number: one.text for number, one in zip(ids, given, strict=True)}


def _number(question_id: int | str, path: Path) -> int:
    number = as_number(question_id)
    if isinstance(number, int):
        return number
    raise UserError(f"{path}: question id '{question_id}' is not a number")


def _by_image(
    people: Sequence[AnnotatedQuestion], given: Sequence[Prediction], path: Path
) -> list[int]:
    """Question ids of LLaVA's TextVQA answers, whose ids are images'; found by the prompt."""
    waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in people:
        waiting[one.image, one.question.lower()].append(one.question_id)
    found = []
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


def _item(dataset: str, one: AnnotatedQuestion, answer: str) -> VqaItem:
    kinds = {"answer type": one.answer_type, "question type": one.question_type}
    return VqaItem(
        benchmark=dataset,
        question_id=one.question_id,
        image=one.image,
        image_file=one.image_file,
        question=one.question,
        answer=answer,
        people=one.answers,
        scores={name: scorer(answer, one.answers) for name, scorer in SCORERS.items()},
        groups=tuple(f"{kind}: {value}" for kind, value in kinds.items() if value),
    )


def _rows(dataset: str, model: str, items: Sequence[VqaItem], seed: int) -> Iterator[Result]:
    """Mean of every scorer over all questions and each type, with bootstrap intervals over
    images."""
    members: dict[str, list[VqaItem]] = {"all": list(items)}
    for item in items:
        for group in item.groups:
            members.setdefault(group, []).append(item)
    for group in ["all", *sorted(name for name in members if name != "all")]:
        own = members[group]
        columns = {name: [item.scores[name] for item in own] for name in SCORERS}
        image_N = np.array([item.image for item in own])
        for metric, found in bootstrap_means(columns, image_N, seed=seed).items():
            yield Result(model, dataset, VERSION, metric, group, *astuple(found))


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
    people: Sequence[AnnotatedQuestion], given: Sequence[Prediction], answered: int
) -> Iterator[str]:
    """A line for each kind of question whose score needs a caveat."""
    counts = (
        ("not answered and counted as wrong", len(people) - answered),
        ("answered without an image", sum(one.margin is None for one in given)),
        (
            f"without {ANNOTATORS} annotators' answers, so that their scores are not official",
            sum(len(one.answers) != ANNOTATORS for one in people),
        ),
    )
    for what, count in counts:
        if count:
            yield f"{count:,} {'question is' if count == 1 else 'questions are'} {what}"


def _table(dataset: str, rows: Sequence[Result]) -> str:
    """The scores in percent with two decimals, as the official tools print them."""
    headline = FREE_FORM[dataset].headline
    lines = [f"{'scorer':<28}{'score':>8}{'95 % interval':>20}"]
    for row in (row for row in rows if row.group == "all"):
        mark = "  as papers report it" if row.metric == headline else ""
        lines.append(f"{_line(row.metric, row)}{mark}")
    kinds = [row for row in rows if row.metric == headline and row.group.startswith("answer type")]
    if kinds:
        lines += ["", f"{headline:<28}{'score':>8}{'95 % interval':>20}{'questions':>11}"]
        lines += [f"{_line(row.group, row)}{row.count:>11,}" for row in kinds]
    return "\n".join(lines)


def _line(title: str, row: Result) -> str:
    interval = f"{100 * row.low:.2f} to {100 * row.high:.2f}"
    return f"{title:<28}{100 * row.value:>8.2f}{interval:>20}"
