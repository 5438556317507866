"""Benchmarks in CSV files: an image and a choice of captions (CREPE, NegBench), or a caption and a
choice of images (SVO-Probes)."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import file_in, files_in, read_csv
from hnc_ds.evaluation.released.rules import FIRST, IDENTICAL, ImageRef, Question
from hnc_ds.reading import AGAIN, reading

CREPE = "CREPE"
BOX = ("x", "y", "width", "height")

PRODUCTIVITY_FILES = {
    f"{kind}, {atoms} atoms": f"{kind}/prod_vg_hard_negs_{kind}_complexity_{atoms}.csv"
    for kind in ("atom", "swap", "negate")
    for atoms in range(4, 13)
}
"""By type of the negatives and complexity of the caption."""

SYSTEMATICITY_FILES = {
    f"{data} {split}": f"syst_vg_hard_negs_{split}_compounds_in_{data}.csv"
    for data in ("cc12m", "yfcc", "laion")
    for split in ("seen", "unseen")
}
"""By the training data of a model, and whether its captions are made of compounds in them."""

SYSTEMATICITY_TYPES = ("atom", "comp", "combined")


def read_productivity(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """TYPE/prod_vg_hard_negs_TYPE_complexity_N.csv; groups are types, tags types and complexities.
    A row without negatives is no question.

    Raises:
        UserError: As ``read_csv``; a cell is not of its kind.

    Source: Ma et al. 2023, https://github.com/RAIVNLab/CREPE (crepe_prod_eval_clip.py).
    """
    for tag, path in files_in(place, PRODUCTIVITY_FILES, CREPE, allow_missing).items():
        kind = tag.partition(",")[0]
        for number, row in enumerate(_crepe_rows(path, "hard_negs")):
            id = f"{path.stem}/{number}"
            question = _retrieved(id, path, row, "hard_negs", kind, (tag,))
            if len(question.captions) > 1:
                yield question


def read_systematicity(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """syst_vg_hard_negs_SPLIT_compounds_in_DATA.csv; groups are DATA SPLIT TYPE. A row has a
    question for each type of negatives that it has.

    Raises:
        UserError: As ``read_productivity``.

    Source: as ``read_productivity`` (crepe_compo_eval_open_clip.py).
    """
    columns = {kind: f"valid_hard_negs_{kind}" for kind in SYSTEMATICITY_TYPES}
    for split, path in files_in(place, SYSTEMATICITY_FILES, CREPE, allow_missing).items():
        for number, row in enumerate(_crepe_rows(path, *columns.values())):
            for kind, column in columns.items():
                question = _retrieved(
                    f"{path.stem}/{number}/{kind}", path, row, column, f"{split} {kind}", ()
                )
                if len(question.captions) > 1:
                    yield question


def _crepe_rows(path: Path, *negatives: str) -> Iterator[dict[str, str]]:
    return read_csv(path, ("image_id", "caption", *BOX, *negatives), CREPE)


def _retrieved(
    id: str, path: Path, row: Mapping[str, str], column: str, group: str, tags: tuple[str, ...]
) -> Question:
    """A region of an image, its caption, and the negatives of a column."""
    where = f"{path}: row {id}"
    left, top, width, height = (_whole(row[name], where) for name in BOX)
    crop = (left, top, left + width, top + height)
    image = ImageRef("vg", f"{_whole(row['image_id'], where)}.jpg", crop)
    negatives = _texts(row[column], where)
    broken = (IDENTICAL,) if row["caption"] in negatives else ()
    captions = (row["caption"], *negatives)
    return Question(id, (image,), captions, FIRST, group, (*tags, *broken))


def _texts(cell: str, where: str) -> list[str]:
    """A list of texts, written as in Python."""
    try:
        with reading(where, what="not a list of texts"):
            found = ast.literal_eval(cell)
    except (SyntaxError, ValueError, TypeError) as error:
        raise UserError(f"{where}: {cell[:60]!r} is not a list of texts; {AGAIN}") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UserError(f"{where}: {cell[:60]!r} is not a list of texts; {AGAIN}")
    return found


def _whole(cell: str, where: str) -> int:
    digits = cell.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise UserError(f"{where}: {cell[:60]!r} is not a whole number; {AGAIN}")
    return int(cell)


NEGBENCH_FILES = {
    "coco": "COCO_val_mcq_llama3.1_rephrased.csv",
    "voc2007": "VOC2007_mcq_llama3.1_rephrased.csv",
}
NEGBENCH_SOURCES = {"coco": "coco2017", "voc2007": "voc2007"}
NEGBENCH_CHOICES = tuple(f"caption_{number}" for number in range(4))


def read_negbench(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """SET_mcq_llama3.1_rephrased.csv: one image, four captions, the number of the true one, which
    comes first here, and the template that it follows (positive, negative, hybrid). Groups are
    sets, tags sets and templates.

    Raises:
        UserError: As ``read_csv``; the number is not that of a caption.

    Source: Alhamoud et al. 2025, https://github.com/m1k2zoo/negbench
    (benchmarks/src/training/data.py, CsvMCQDataset).
    """
    columns = ("image_path", "correct_answer", "correct_answer_template", *NEGBENCH_CHOICES)
    for group, path in files_in(place, NEGBENCH_FILES, "NegBench", allow_missing).items():
        for number, row in enumerate(read_csv(path, columns, "NegBench")):
            where = f"{path}: row {number}"
            captions = [row[name] for name in NEGBENCH_CHOICES]
            true = _whole(row["correct_answer"], where)
            if not 0 <= true < len(captions):
                raise UserError(f"{where}: there is no caption {true}; {AGAIN}")
            captions.insert(0, captions.pop(true))
            image = ImageRef(NEGBENCH_SOURCES[group], PurePosixPath(row["image_path"]).name)
            tags = (f"{group} {row['correct_answer_template']}",)
            broken = (IDENTICAL,) if captions[0] in captions[1:] else ()
            id = f"{group}/{number}"
            yield Question(id, (image,), tuple(captions), FIRST, group, (*tags, *broken))


SVO_FILE = "svo_probes.csv"
SVO_TYPES = {"subject": "subj_neg", "verb": "verb_neg", "object": "obj_neg"}
"""Column that is true if the other image differs in this."""

SVO_BOTH = {"true": True, "false": False}


def read_svo(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """svo_probes.csv: a sentence, the id of its image and of one that differs in subject, verb or
    object. Rows that differ in several are left out, as in the authors' notebook. Images: ID.jpg.

    Raises:
        UserError: As ``read_csv``; a cell is not of its kind.

    Source: Hendricks and Nematzadeh 2021, https://github.com/google-deepmind/svo_probes.
    """
    path = file_in(place, SVO_FILE, "SVO-Probes")
    columns = ("sentence", "pos_image_id", "neg_image_id", *SVO_TYPES.values())
    for number, row in enumerate(read_csv(path, columns, "SVO-Probes")):
        where = f"{path}: row {number}"
        differs = [kind for kind, name in SVO_TYPES.items() if _truth(row[name], where)]
        ids = (_whole(row[name], where) for name in ("pos_image_id", "neg_image_id"))
        images = tuple(ImageRef("svo", f"{image}.jpg") for image in ids)
        if len(differs) == 1:
            yield Question(f"svo/{number}", images, (row["sentence"],), FIRST, differs[0])


def _truth(cell: str, where: str) -> bool:
    if cell.lower() not in SVO_BOTH:
        raise UserError(f"{where}: {cell[:60]!r} is neither True nor False; {AGAIN}")
    return SVO_BOTH[cell.lower()]
