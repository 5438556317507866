"""Is all there that a job needs? Before it waits in a queue. No torch here."""

from collections.abc import Sequence
from os.path import isfile  # False as well for names that no file can have
from pathlib import Path, PurePosixPath

from hnc_ds.config import AnswerConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.llava.questions import Questions

RELEASED = {
    "vqav2": {214_354: "val2014", 443_757: "train2014", 107_394: "test-dev", 447_793: "test"},
    "textvqa": {5_000: "val 0.5.1", 34_602: "train 0.5.1", 5_734: "test 0.5.1"},
}
"""Questions of each split."""


def check_inputs(config: AnswerConfig, questions: Questions) -> None:
    """Print what was found.

    Raises:
        UserError: Pictures are missing and may not be; a name leads out of their folder.
    """
    asked = questions.asked
    names = sorted({question.image for question in asked})
    missing = missing_pictures(config.images, names)
    split = RELEASED[config.dataset].get(len(asked), "no split that is known by its size")
    print(
        f"{config.dataset}: {counted(len(asked), 'question')} ({split}), OCR tokens: "
        f"{questions.ocr}; "
        f"{len(names) - len(missing):,} of {len(names):,} pictures"
    )
    if missing and not config.allow_missing:
        raise UserError(
            f"{config.images}: {len(missing):,} of {len(names):,} pictures are not there, the "
            f"first is {missing[0]}; name their folder (--images), or give --allow-missing to "
            "answer their questions with nothing"
        )


def missing_pictures(folder: Path, names: Sequence[str]) -> list[str]:
    """Those that are not in the folder.

    Raises:
        UserError: There is no such folder, or a name leads out of it.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise UserError(f"image '{name}' leads out of its folder; correct the questions' file")
    return [name for name in names if not isfile(folder / name)]
