"""Answers to VQA v2.0 or TextVQA against those of people: results.json, and every answer beside it.

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

from hnc_ds.config import ScoreConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.benchmarks import HEADLINE_SCORER
from hnc_ds.evaluation.items import ItemsHeader, VqaItem, items_path, write_results
from hnc_ds.evaluation.statistics import bootstrap_means
from hnc_ds.llava.answers_file import GivenAnswer, check_once, read_given
from hnc_ds.llava.people import Annotated, read_people
from hnc_ds.llava.questions import as_number
from hnc_ds.llava.scorers import SCORERS
from hnc_ds.records import Result
from hnc_ds.whole_files import write_whole, writing

VERSION = 1
"""Raise it when the same answers would now score differently."""

PEOPLE = 10
"""Answers to each question, by which the official scores are defined."""

IMAGES = "images"
"""What the header calls the folder of pictures."""


def score(config: ScoreConfig) -> None:
    """Score a file of answers, write results and items, and print a table.

    Raises:
        UserError: A file is missing, broken or of another layout; answers are missing, twice, or
            of questions that there are not; an output that cannot be written.
    """
    people = read_people(config.dataset, config.annotations, config.questions)
    given = read_given(config.answers)
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
    config: ScoreConfig, people: Sequence[Annotated], given: Sequence[GivenAnswer]
) -> dict[int, str]:
    """Answers by question."""
    known = {one.question_id for one in people}
    by_id = all(isinstance(one.question_id, int) for one in given)
    if by_id or config.dataset == "vqav2":
        ids = [_number(one.question_id, config.answers) for one in given]
        check_once(ids, config.answers)
    else:
        ids = _by_picture(people, given, config.answers)
    if unknown := [one for one in ids if one not in known]:
        raise UserError(
            f"{config.answers}: {counted(len(unknown), 'answer is', 'answers are')} to no "
            "question of "
            f"{config.annotations}, the first is {unknown[0]}; take the files of one split"
        )
    missing = known - set(ids)
    if missing and not config.allow_missing:
        raise UserError(
            f"{config.answers}: {len(missing):,} of {len(known):,} questions are not answered, the "
            f"first is {min(missing)}; answer them, or give --allow-missing to count them as wrong"
        )
    return {number: one.text for number, one in zip(ids, given, strict=True)}


def _number(question_id: int | str, path: Path) -> int:
    """Ids that a tool wrote as text are numbers all the same."""
    number = as_number(question_id)
    if isinstance(number, int):
        return number
    raise UserError(f"{path}: question id '{question_id}' is no number")


def _by_picture(people: Sequence[Annotated], given: Sequence[GivenAnswer], path: Path) -> list[int]:
    """LLaVA's TextVQA answers: the id is the picture's, and the question stands in the prompt."""
    waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in people:
        waiting[one.image, one.question.lower()].append(one.question_id)
    found = []
    for answer in given:
        asked = answer.prompt.split("\n")[0].lower()
        ids = waiting[str(answer.question_id), asked]
        if not ids:
            raise UserError(
                f"{path}: picture {answer.question_id} with the question '{asked}' is answered "
                "twice, or there is no such question; take the files of one split"
            )
        found.append(ids.pop(0))
    return found


def _item(dataset: str, one: Annotated, answer: str) -> VqaItem:
    kinds = {"answer type": one.answer_type, "question type": one.question_type}
    return VqaItem(
        benchmark=dataset,
        question_id=one.question_id,
        image=one.image,
        picture=one.picture,
        question=one.question,
        answer=answer,
        people=one.answers,
        scores={name: scorer(answer, one.answers) for name, scorer in SCORERS.items()},
        groups=tuple(f"{kind}: {value}" for kind, value in kinds.items() if value),
    )


def _rows(dataset: str, model: str, items: Sequence[VqaItem], seed: int) -> Iterator[Result]:
    """Means of every scorer over all questions and each type, by bootstrap over pictures."""
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
    scorer = HEADLINE_SCORER[dataset]
    lines = (
        msgspec.json.encode({"question_id": one.question_id, "score": one.scores[scorer]}) + b"\n"
        for one in items
    )
    with writing(path):
        write_whole(path, *lines)


def _printable(name: str) -> str:
    """Without the halves of characters that bytes of a command line may become."""
    return name.encode(errors="replace").decode()


def _counted(
    people: Sequence[Annotated], given: Sequence[GivenAnswer], answered: int
) -> Iterator[str]:
    """A line for each kind of question whose score is not what it seems."""
    counts = (
        ("not answered and counted as wrong", len(people) - answered),
        ("answered without an image", sum(one.margin is None for one in given)),
        (
            f"without {PEOPLE} answers of people, so that their scores are not the official ones",
            sum(len(one.answers) != PEOPLE for one in people),
        ),
    )
    for what, count in counts:
        if count:
            yield f"{count:,} {'question is' if count == 1 else 'questions are'} {what}"


def _table(dataset: str, rows: Sequence[Result]) -> str:
    """As the official tools print: percent with two decimals."""
    headline = HEADLINE_SCORER[dataset]
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
