"""Scores of a model on one released benchmark, as its record in benchmarks.py describes them.

Distinct images and captions of all questions are encoded once.

Source of zero-shot classification: CLIP (Radford et al. 2021), and CLIP_benchmark's acc1, acc5 and
mean_per_class_recall.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hnc_ds.errors import UserError
from hnc_ds.evaluation import blind
from hnc_ds.evaluation.benchmarks import RELEASED, ZERO_SHOT
from hnc_ds.evaluation.corruptions import Condition, Judged, judged_outcomes, robustness
from hnc_ds.evaluation.embed import Corruption
from hnc_ds.evaluation.held_out import CUTOFFS, rank_first_right
from hnc_ds.evaluation.inputs import EvaluationInputs
from hnc_ds.evaluation.released.images import ImageFiles, read_image
from hnc_ds.evaluation.released.rules import (
    IDENTICAL,
    ImageRef,
    Outcome,
    Question,
    Rule,
    Scores,
    first_images,
)
from hnc_ds.evaluation.released.summary import (
    Averages,
    Row,
    judge_single_captions,
    members,
    outcomes_of_captions,
    single_captions,
    summarise,
)
from hnc_ds.evaluation.released.zero_shot import OVER_SETS, ImageSet, prompts, sets_in
from hnc_ds.evaluation.results import CLASS, AnsweredItem, Coverage, Item
from hnc_ds.evaluation.similarity import Grid, Scorer, Similarity
from hnc_ds.evaluation.statistics import bootstrap_mean, bootstrap_means, bootstrap_of_group_means
from hnc_ds.images import CorruptImage
from hnc_ds.records import Result
from hnc_ds.shards.images import cut_out, decode_image

Ranks = dict[str, dict[str, tuple[int, ...]]]
"""``AnsweredItem.ranks`` by id of the question."""


@dataclass(frozen=True)
class Encoded:
    """Scorable questions with the scores of their images and captions."""

    files: Sequence[tuple[Path, ImageRef]]
    """File of each row of images."""
    questions: list[Question]
    image_row: Mapping[ImageRef, int]
    text_row: Mapping[str, int]
    similarity: Similarity
    coverage: Coverage


class FileImages:
    """Images in files, cropped if the question has a box.

    Args:
        files: (path, image with its box) by index.
    """

    def __init__(self, files: Sequence[tuple[Path, ImageRef]]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Source, name and box."""
        image = self._files[index][1]
        return f"{image.title} {image.crop or ''}"

    def image(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        path, image = self._files[index]
        try:
            data = read_image(path, image)
        except (OSError, ValueError, EOFError, UserError) as error:
            raise CorruptImage(str(error)) from error
        image_3HW = decode_image(data)
        return image_3HW if image.crop is None else cut_out(image_3HW, image.crop)

    def identity(self) -> str:
        """sha256 of names, boxes, and the sizes and times of the files."""
        stats = [path.stat() for path, _ in self._files]
        lines = [
            repr((self.name(index), stat.st_size, stat.st_mtime_ns))
            for index, stat in enumerate(stats)
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def encode_questions(
    scorer: Scorer,
    questions: Sequence[Question],
    files: ImageFiles,
    *,
    benchmark: str,
    allow_missing: bool,
) -> Encoded:
    """Encode the images and captions of questions, each once.

    Args:
        scorer: The model.
        questions: Questions of one benchmark.
        files: Finds the images.
        benchmark: Name of the benchmark, for messages.
        allow_missing: Leave out questions without their images.

    Raises:
        UserError: Images are missing or cannot be decoded, and allow_missing is false; or no
            question is left.
    """
    wanted = list(dict.fromkeys(image for question in questions for image in question.images))
    paths = {image: files.find(image) for image in wanted}
    found = [(path, image) for image, path in paths.items() if path is not None]
    missing = [image for image, path in paths.items() if path is None]
    if missing and not (allow_missing and found):
        raise UserError(_missing(benchmark, missing, wanted, questions))
    encoded = scorer.images(FileImages(found))
    unreadable = [found[index] for index in encoded.unreadable]
    if unreadable and not (allow_missing and encoded.samples):
        raise UserError(
            f"{benchmark}: {len(unreadable):,} of {len(found):,} images cannot be decoded, the "
            f"first is {unreadable[0][0]} ({_reason(unreadable[0])}); copy them again, or give "
            "--allow-missing to leave out their questions"
        )
    row_of = {found[index][1]: row for row, index in enumerate(encoded.samples)}
    kept = [q for q in questions if all(image in row_of for image in q.images)]
    if not kept:
        raise UserError(
            f"{benchmark}: no question has all of its images ({len(missing)} are missing, "
            f"{len(unreadable)} cannot be decoded); copy them again"
        )
    captions = {c: n for n, c in enumerate(dict.fromkeys(c for q in kept for c in q.captions))}
    similarity, too_long = scorer.similarity(encoded, list(captions))
    return Encoded(
        [found[index] for index in encoded.samples],
        kept,
        row_of,
        captions,
        similarity,
        Coverage(
            questions=len(kept),
            images=len(encoded.samples),
            captions=len(captions),
            lost=dict(Counter(q.group for q in questions) - Counter(q.group for q in kept)),
            missing=tuple(image.title for image in missing),
            unreadable=tuple(str(path) for path, _ in unreadable),
            too_long=too_long,
            identical=sum(IDENTICAL in question.tags for question in kept),
            fingerprint=fingerprint(kept),
            asked=fingerprint(questions),
        ),
    )


def _reason(file: tuple[Path, ImageRef]) -> str:
    """Why an image could not be decoded."""
    try:
        FileImages([file]).image(0)
    except CorruptImage as error:
        return str(error)
    return "it can be now"


def encode_again(scorer: Scorer, encoded: Encoded, corruption: Corruption) -> Encoded:
    """The same questions with corrupted images."""
    worse = scorer.corrupted(encoded.similarity, FileImages(encoded.files), corruption)
    return replace(encoded, similarity=worse)


def fingerprint(questions: Sequence[Question]) -> str:
    """sha256 of questions."""
    lines = [repr((q.id, q.images, q.captions, sorted(q.match), q.group)) for q in questions]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def scores_of(encoded: Encoded) -> list[Scores]:
    """Scores of each question."""
    image_row, text_row, questions = encoded.image_row, encoded.text_row, encoded.questions
    similarity = encoded.similarity
    cells = [
        [(image_row[image], text_row[caption]) for image in q.images for caption in q.captions]
        for q in questions
    ]
    texts = [
        [(text_row[one], text_row[other]) for one in q.captions for other in q.captions]
        for q in questions
    ]
    image_text = _split(similarity.pairs(*_rows_of(cells)), cells)
    found = similarity.texts(*_rows_of(texts))
    text_text = [None] * len(questions) if found is None else _split(found, texts)
    return [
        Scores(
            one.reshape(len(q.images), -1),
            None if other is None else other.reshape(len(q.captions), -1),
            similarity.thresholds,
        )
        for q, one, other in zip(questions, image_text, text_text, strict=True)
    ]


_Cells = Sequence[Sequence[tuple[int, int]]]
"""Pairs of rows of each question."""


def _rows_of(cells: _Cells) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([pair for group in cells for pair in group], dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _split(scores: np.ndarray, cells: _Cells) -> list[np.ndarray]:
    """One array per question."""
    return np.split(scores, np.cumsum([len(group) for group in cells])[:-1])


def _missing(
    benchmark: str,
    missing: Sequence[ImageRef],
    wanted: Sequence[ImageRef],
    questions: Sequence[Question],
) -> str:
    absent = set(missing)
    lost = sum(not absent.isdisjoint(question.images) for question in questions)
    sources = ",".join(f"{source}=DIR" for source in sorted({image.source for image in missing}))
    line = (
        f"{benchmark}: {len(missing):,} of {len(wanted):,} images are missing, the first is "
        f"{missing[0].title}; name their folders: --images {sources}"
    )
    if len(missing) < len(wanted):
        line += f", or give --allow-missing to leave out {lost:,} of {len(questions):,} questions"
    return line


def measure_questions(
    scorer: Scorer, name: str, inputs: EvaluationInputs
) -> tuple[list[Result], Coverage, list[Item]]:
    """Rows, coverage, and one item per question. A collective.

    Args:
        scorer: The model.
        name: Name of the benchmark.
        inputs: Its questions and images.

    Raises:
        UserError: As ``encode_questions``.
    """
    known, model, read = RELEASED[name], scorer.name, inputs.questions[name]
    encoded = encode_questions(
        scorer, read, inputs.images, benchmark=name, allow_missing=inputs.allow_missing
    )
    questions, scores = encoded.questions, scores_of(encoded)
    rows, outcomes = list[Result](), [Outcome({}, False)] * len(questions)
    if known.rule is not None:
        outcomes = list(map(known.rule, questions, scores))
        rows += summarise(
            name, known.version, model, questions, outcomes, known.averages, inputs.seed, read
        )
    elif known.further_scores is single_captions:
        outcomes = outcomes_of_captions(questions, scores)
    blind_N = _twins(encoded, known.rule, inputs.seed)
    further, ranks = _further_rows(scorer, name, encoded, scores, inputs)
    further += _blind_rows(questions, outcomes, blind_N, inputs.seed)
    rows += [
        Result(model, name, known.version, metric, group, *astuple(interval))
        for metric, group, interval in further
    ]
    items: list[Item] = [
        _item(name, *item, ranks.get(item[0].id, {}))
        for item in zip(questions, scores, outcomes, blind_N, strict=True)
    ]
    return rows, encoded.coverage, items


def _twins(encoded: Encoded, rule: Rule | None, seed: int) -> np.ndarray:
    """Blind accuracy of each question (blind.py), float [N]; not a number where a question is not
    one image with a true and a false caption, or has no twin."""
    questions, image_row, text_row = encoded.questions, encoded.image_row, encoded.text_row
    blind_N = np.full(len(questions), np.nan)
    pairs = [n for n, question in enumerate(questions) if _is_pair(question)]
    if rule is None or not pairs:
        return blind_N
    own = [questions[n] for n in pairs]
    image_P = np.array([image_row[q.images[0]] for q in own])
    true_P = np.array([text_row[q.captions[q.true_captions()[0]]] for q in own])
    true_2T = np.array([image_P, true_P])
    image_RP = blind.other_images(image_P, true_P, true_2T, len(encoded.files), seed)
    cells = [
        [(row, text_row[c]) for c in q.captions]
        for row_P in np.maximum(image_RP, 0).tolist()
        for row, q in zip(row_P, own, strict=True)
    ]
    found = _split(encoded.similarity.pairs(*_rows_of(cells)), cells)
    right_Q = [
        rule(question, Scores(score_C[None], np.eye(len(score_C)))).right["accuracy"]
        for question, score_C in zip(own * len(image_RP), found, strict=True)
    ]
    blind_N[pairs] = blind.mean_of_twins(np.reshape(right_Q, image_RP.shape), image_RP)
    return blind_N


def _is_pair(question: Question) -> bool:
    """Whether a question is one image with a true and a false caption."""
    parts = question.images, question.captions, question.true_captions()
    return tuple(map(len, parts)) == (1, 2, 1)


def _blind_rows(
    questions: Sequence[Question], outcomes: Sequence[Outcome], blind_N: np.ndarray, seed: int
) -> Iterator[Row]:
    """Blind and sighted accuracy over all pairs and per group, if all questions are pairs."""
    if np.isnan(blind_N).any():
        return
    right_N = np.array([outcome.right["accuracy"] for outcome in outcomes])
    image_N, found = first_images(questions), blind.columns(right_N, blind_N)
    groups = {"all": np.arange(len(questions)), **members(questions, Averages())}
    for metric, value_N in found.items():
        for group, chosen in groups.items():
            yield metric, group, bootstrap_mean(value_N[chosen], image_N[chosen], seed=seed)


def _item(
    name: str,
    question: Question,
    scores: Scores,
    outcome: Outcome,
    blind_accuracy: float,
    ranks: dict[str, tuple[int, ...]],
) -> AnsweredItem:
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
        blind=None if np.isnan(blind_accuracy) else float(blind_accuracy),
        ranks=ranks,
    )


def _further_rows(
    scorer: Scorer, name: str, encoded: Encoded, scores: list[Scores], inputs: EvaluationInputs
) -> tuple[list[Row], Ranks]:
    """Scores over all questions, and scores on corrupted images; ranks of searches."""
    known, seed = RELEASED[name], inputs.seed
    rows, ranks = list[Row](), Ranks()
    judge: Callable[[Encoded], dict[str, Judged]]
    if known.searches:
        rows, ranks = measure_retrieval(encoded, seed)
        judge = judge_retrieval
    elif name == ZERO_SHOT:
        suite = Suite(scorer, sets_in(inputs.paths[name]))
        rows, ranks = suite.classify(encoded, seed)
        judge = suite.judge
    elif (rule := known.rule) is not None:

        def judge(encoded: Encoded) -> dict[str, Judged]:
            outcomes = list(map(rule, encoded.questions, scores_of(encoded)))
            return judged_outcomes(encoded.questions, outcomes)

    else:

        def judge(encoded: Encoded) -> dict[str, Judged]:
            return judge_single_captions(encoded.questions, scores_of(encoded))

    if known.further_scores is not None:
        rows += known.further_scores(encoded.questions, scores, seed)
    if inputs.conditions and (clean := judge(encoded)):

        def judge_corrupted(condition: Condition) -> dict[str, Judged]:
            return judge(encode_again(scorer, encoded, Corruption(*condition, seed)))

        rows += robustness(clean, inputs.conditions, judge_corrupted, seed)
    return rows, ranks


def measure_retrieval(encoded: Encoded, seed: int) -> tuple[list[Row], Ranks]:
    """Rows of recall at 1, 5 and 10, and ranks; an image with all its captions is one question.

    Each image searches all captions and is right with any of its own; each caption searches all
    images. Of equal similarities the wrong one comes first; such queries are counted as ties.

    Args:
        encoded: N questions with G captions in total.
        seed: Seed of the bootstrap over images.
    """
    rows, ranks = list[Row](), _no_ranks(encoded)
    for direction in _directions(encoded):
        rank_Q = rank_first_right(*direction.right)
        columns = _hits(direction, rank_Q)
        starts_N = np.searchsorted(direction.cluster_Q, np.arange(1, len(encoded.questions)))
        for question, own_Q in zip(encoded.questions, np.split(rank_Q, starts_N), strict=True):
            ranks[question.id][direction.name] = tuple(own_Q.tolist())
        columns["ties"] = rank_Q != rank_first_right(*direction.right, ties_first=False)
        for metric, interval in bootstrap_means(columns, direction.cluster_Q, seed=seed).items():
            rows.append((metric, direction.name if metric == "ties" else "all", interval))
    return rows, ranks


def _no_ranks(encoded: Encoded) -> Ranks:
    return {question.id: {} for question in encoded.questions}


def judge_retrieval(encoded: Encoded) -> dict[str, Judged]:
    """Hits of each query, by metric."""
    return {
        metric: Judged(hit_Q, direction.cluster_Q)
        for direction in _directions(encoded)
        for metric, hit_Q in _hits(direction, rank_first_right(*direction.right)).items()
    }


class _Direction(NamedTuple):
    """A search direction: arguments of rank_first_right, and the image of each query."""

    name: str
    right: tuple[Grid, np.ndarray, np.ndarray]
    cluster_Q: np.ndarray


def _directions(encoded: Encoded) -> tuple[_Direction, _Direction]:
    questions = encoded.questions
    image_G = np.repeat(np.arange(len(questions)), [len(q.captions) for q in questions])
    rows_N = [encoded.image_row[q.images[0]] for q in questions]
    rows_G = [encoded.text_row[caption] for q in questions for caption in q.captions]
    grid = encoded.similarity.grid(rows_N, rows_G)
    text_G = np.arange(len(image_G))
    return (
        _Direction("image_to_text", (grid, image_G, text_G), np.arange(len(questions))),
        _Direction("text_to_image", (grid.transposed(), text_G, image_G), image_G),
    )


def _hits(direction: _Direction, rank_Q: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{direction.name}_R@{cutoff}": rank_Q < cutoff for cutoff in CUTOFFS}


class Classes:
    """Classes of a set of images, for zero-shot classification.

    Of equal similarities the wrong class comes first, and such images are counted as ties.

    Args:
        scorer: The model; ``classifier`` says what a class is.
        images: The set.
    """

    def __init__(self, scorer: Scorer, images: ImageSet) -> None:
        names = images.names.values()
        self._classify = scorer.classifier([prompts(images.templates, name) for name in names])
        self._number_of = {label: number for number, label in enumerate(images.names)}
        self._set = f"{images.name}/" if images.name else ""

    def classify(self, encoded: Encoded, seed: int) -> tuple[list[Row], Ranks]:
        """Rows of acc1, acc5 and mean per-class recall, and the rank of each image's class.

        Args:
            encoded: One question per image; its group is LABEL, or SET/LABEL.
            seed: Seed of the bootstrap over images.
        """
        right, image_N = self._right(encoded), np.arange(len(encoded.questions))
        rank_N = rank_first_right(*right)
        columns = {
            **_class_hits(rank_N),
            "ties": rank_N != rank_first_right(*right, ties_first=False),
        }
        found = bootstrap_means(columns, image_N, seed=seed)
        rows = [(metric, "all", interval) for metric, interval in found.items()]
        group_N = np.array([question.group for question in encoded.questions])
        groups = np.unique(group_N).tolist()
        recall = bootstrap_of_group_means(columns["acc1"], group_N, groups, image_N, seed=seed)
        ranks: Ranks = {
            question.id: {CLASS: (rank,)}
            for question, rank in zip(encoded.questions, rank_N.tolist(), strict=True)
        }
        return [*rows, ("mean_per_class_recall", "all", recall)], ranks

    def judge(self, encoded: Encoded) -> dict[str, Judged]:
        """Hits of each image, by metric."""
        image_N = np.arange(len(encoded.questions))
        hits = _class_hits(rank_first_right(*self._right(encoded)))
        return {metric: Judged(hit_N, image_N) for metric, hit_N in hits.items()}

    def _right(self, encoded: Encoded) -> tuple[Grid, np.ndarray, np.ndarray]:
        """Arguments of rank_first_right."""
        labels = (question.group.removeprefix(self._set) for question in encoded.questions)
        class_N = np.array([self._number_of[label] for label in labels])
        rows = [encoded.image_row[q.images[0]] for q in encoded.questions]
        return self._classify(encoded.similarity, rows), np.arange(len(class_N)), class_N


class Suite:
    """Zero-shot classification of a set, or of several, with the means over those that are there.

    Args:
        scorer: The model.
        sets: Their classes; one without a name is alone.
    """

    def __init__(self, scorer: Scorer, sets: Sequence[ImageSet]) -> None:
        self._classes = {one.name: Classes(scorer, one) for one in sets}

    def classify(self, encoded: Encoded, seed: int) -> tuple[list[Row], Ranks]:
        """Rows of a set alone, or the means over sets of acc1 and acc5, whose count is the number
        of sets, and the rows of each set; ranks as ``Classes.classify``.

        Args:
            encoded: One question per image of all sets.
            seed: Seed of the bootstrap over images.
        """
        if "" in self._classes:
            return self._classes[""].classify(encoded, seed)
        rows, ranks = list[Row](), Ranks()
        parts = self._parts(encoded)
        sets_N, hits = self._hits(parts)
        for metric, hit_N in hits.items():
            found = bootstrap_of_group_means(
                hit_N, sets_N, list(parts), np.arange(len(sets_N)), seed=seed
            )
            rows.append((f"{metric}{OVER_SETS}", "all", replace(found, count=len(parts))))
        for name, part in parts.items():
            own, of_images = self._classes[name].classify(part, seed)
            rows += [(metric, name, interval) for metric, _, interval in own]
            ranks |= of_images
        return rows, ranks

    def judge(self, encoded: Encoded) -> dict[str, Judged]:
        """Hits of each image, by metric; of several sets, weighted so that their mean is the mean
        over sets."""
        if "" in self._classes:
            return self._classes[""].judge(encoded)
        sets_N, hits = self._hits(self._parts(encoded))
        names, place_N, count = np.unique(sets_N, return_inverse=True, return_counts=True)
        weight_N = len(sets_N) / (len(names) * count[place_N])
        return {
            f"{metric}{OVER_SETS}": Judged(hit_N * weight_N, np.arange(len(sets_N)))
            for metric, hit_N in hits.items()
        }

    def _parts(self, encoded: Encoded) -> dict[str, Encoded]:
        """The questions of each set that has any."""
        questions: dict[str, list[Question]] = {name: [] for name in self._classes}
        for question in encoded.questions:
            questions[question.group.partition("/")[0]].append(question)
        return {name: replace(encoded, questions=own) for name, own in questions.items() if own}

    def _hits(self, parts: Mapping[str, Encoded]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Set of each image, and its hits by metric."""
        judged = {name: self._classes[name].judge(part) for name, part in parts.items()}
        sets_N = np.repeat(list(parts), [len(part.questions) for part in parts.values()])
        metrics = next(iter(judged.values()))
        return sets_N, {
            metric: np.concatenate([own[metric].right_Q for own in judged.values()])
            for metric in metrics
        }


def _class_hits(rank_N: np.ndarray) -> dict[str, np.ndarray]:
    return {"acc1": rank_N < 1, "acc5": rank_N < 5}
