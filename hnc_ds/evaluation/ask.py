"""Questions put to a model: every distinct picture and caption is encoded once, then scored."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import Worse
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.hard_negatives import cosines
from hnc_ds.evaluation.image_files import ImageFiles, read_picture
from hnc_ds.evaluation.items import Coverage
from hnc_ds.evaluation.question import IDENTICAL, ImageRef, Question
from hnc_ds.evaluation.rules import Scores
from hnc_ds.images import CorruptImage
from hnc_ds.shards.images import cut_out, decode_image


@dataclass(frozen=True)
class Encoded:
    """The questions that could be asked, their pictures and their captions."""

    files: Sequence[tuple[Path, ImageRef]]
    """Of the pictures, row by row."""
    questions: list[Question]
    image_ND: torch.Tensor
    image_row: Mapping[ImageRef, int]
    text_TD: torch.Tensor
    text_row: Mapping[str, int]
    coverage: Coverage


class FilePictures:
    """Pictures in files, cut to a box where the question says so.

    Args:
        files: And boxes, by index.
    """

    def __init__(self, files: Sequence[tuple[Path, ImageRef]]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Source, name and box."""
        image = self._files[index][1]
        return f"{image.title} {image.crop or ''}"

    def picture(self, index: int) -> torch.Tensor:
        """uint8 [3, height, width]. Raises CorruptImage."""
        path, image = self._files[index]
        try:
            data = read_picture(path, image)
        except (OSError, ValueError) as error:
            raise CorruptImage(str(error)) from error
        image_3HW = decode_image(data)
        return image_3HW if image.crop is None else cut_out(image_3HW, image.crop)

    def identity(self) -> str:
        """sha256 over names, boxes, and the sizes and times of the files."""
        stats = [path.stat() for path, _ in self._files]
        told = [
            repr((self.name(index), stat.st_size, stat.st_mtime_ns))
            for index, stat in enumerate(stats)
        ]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


def encode_questions(
    encoder: Encoder,
    questions: Sequence[Question],
    files: ImageFiles,
    *,
    benchmark: str,
    allow_missing: bool,
) -> Encoded:
    """Encode the pictures and captions of questions, each once.

    Args:
        encoder: Of the model.
        questions: Of one benchmark.
        files: Where pictures are.
        benchmark: Its name, for messages.
        allow_missing: Whether questions without their pictures may be left out.

    Raises:
        UserError: Pictures are missing or cannot be decoded, and may not be; or all are.
    """
    wanted = list(dict.fromkeys(image for question in questions for image in question.images))
    paths = {image: files.find(image) for image in wanted}
    found = [(path, image) for image, path in paths.items() if path is not None]
    missing = [image for image, path in paths.items() if path is None]
    if missing and not (allow_missing and found):
        raise UserError(_missing(benchmark, missing, wanted, questions))
    encoded = encoder.pictures(FilePictures(found))
    unreadable = [found[index] for index in encoded.unreadable]
    if unreadable and not (allow_missing and encoded.samples):
        raise UserError(
            f"{benchmark}: {len(unreadable):,} of {len(found):,} images cannot be decoded, the "
            f"first is {unreadable[0][0]} ({_reason(unreadable[0])}); copy what is wrong again, or "
            "give --allow-missing to leave out its questions"
        )
    row_of = {found[index][1]: row for row, index in enumerate(encoded.samples)}
    kept = [q for q in questions if all(image in row_of for image in q.images)]
    if not kept:
        raise UserError(
            f"{benchmark}: no question has all of its images ({len(missing)} are missing, "
            f"{len(unreadable)} cannot be decoded); copy them again"
        )
    captions = {c: n for n, c in enumerate(dict.fromkeys(c for q in kept for c in q.captions))}
    text_TD, too_long = encoder.texts(list(captions))
    return Encoded(
        [found[index] for index in encoded.samples],
        kept,
        encoded.image_ND,
        row_of,
        text_TD,
        captions,
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
    """Why a picture cannot be decoded."""
    try:
        FilePictures([file]).picture(0)
    except CorruptImage as error:
        return str(error)
    return "it can be by now"


def encode_again(encoder: Encoder, encoded: Encoded, worse: Worse) -> Encoded:
    """The same questions with worse pictures."""
    return replace(encoded, image_ND=encoder.pictures(FilePictures(encoded.files), worse).image_ND)


def fingerprint(questions: Sequence[Question]) -> str:
    """sha256 over the questions: equal where two models were asked the same."""
    told = [repr((q.id, q.images, q.captions, sorted(q.match), q.group)) for q in questions]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def scores_of(encoded: Encoded) -> list[Scores]:
    """Cosines of each question, all summed in one way: equal embeddings give equal scores."""
    image_row, text_row, questions = encoded.image_row, encoded.text_row, encoded.questions
    cells = [
        [(image_row[image], text_row[caption]) for image in q.images for caption in q.captions]
        for q in questions
    ]
    texts = [
        [(text_row[one], text_row[other]) for one in q.captions for other in q.captions]
        for q in questions
    ]
    image_text = _scored(cells, encoded.image_ND, encoded.text_TD)
    text_text = _scored(texts, encoded.text_TD, encoded.text_TD)
    return [
        Scores(one.reshape(len(q.images), -1), other.reshape(len(q.captions), -1))
        for q, one, other in zip(questions, image_text, text_text, strict=True)
    ]


def _scored(
    cells: Sequence[Sequence[tuple[int, int]]], one_D: torch.Tensor, other_D: torch.Tensor
) -> list[np.ndarray]:
    """Cosines of rows of one with rows of the other, float32, in the groups that they come in."""
    ends = np.cumsum([len(group) for group in cells])[:-1]
    rows = np.array([pair for group in cells for pair in group], dtype=np.int64).reshape(-1, 2)
    return np.split(cosines(one_D, other_D, rows[:, 0], rows[:, 1]), ends)


def _missing(
    benchmark: str,
    missing: Sequence[ImageRef],
    wanted: Sequence[ImageRef],
    questions: Sequence[Question],
) -> str:
    gone = set(missing)
    lost = sum(not gone.isdisjoint(question.images) for question in questions)
    sources = ",".join(f"{source}=DIR" for source in sorted({image.source for image in missing}))
    line = (
        f"{benchmark}: {len(missing):,} of {len(wanted):,} pictures are not there, the first is "
        f"{missing[0].title}; name their folders: --images {sources}"
    )
    if len(missing) < len(wanted):
        line += f", or give --allow-missing to leave out {lost:,} of {len(questions):,} questions"
    return line
