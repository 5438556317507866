"""Where the user has the files and the pictures of benchmarks.

--data sugarcrepe=DIR,valse=DIR    --images coco2017=DIR,vg=DIR:DIR2
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.image_files import SOURCES, ImageFiles, leads_out
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.evaluation.readers.annotations import without_twins


def read_places(given: str) -> dict[str, Path]:
    """``sugarcrepe=DIR,valse=DIR`` as places by benchmark, in the order of the table.

    Raises:
        UserError: Not of that form, no such benchmark, no such place, a benchmark twice.
    """
    named = _named(given, "--data", "BENCHMARK=PLACE", QUESTION_SETS, "")
    for name, place in named.items():
        if not Path(place).exists():
            raise UserError(f"--data: {name}={place}: no such file or folder")
    return {name: Path(named[name]) for name in QUESTION_SETS if name in named}


def read_image_folders(given: str) -> dict[str, tuple[Path, ...]]:
    """``coco2017=DIR,vg=DIR:DIR2`` as folders by source.

    Raises:
        UserError: Not of that form, no such source, no such folder, a source twice.
    """
    joined = f"; join its folders by '{os.pathsep}'"
    named = _named(given, "--images", "SOURCE=FOLDER", SOURCES, joined)
    folders = {source: tuple(map(Path, p.split(os.pathsep))) for source, p in named.items()}
    for source, own in folders.items():
        for folder in own:
            if not folder.is_dir():
                raise UserError(f"--images: {source}={folder}: no such folder")
    return folders


def find_images(given: str, places: Mapping[str, Path]) -> ImageFiles:
    """Where pictures are: in the folders of --images, and with benchmarks that bring their own.

    Raises:
        UserError: As ``read_image_folders``.
    """
    folders = read_image_folders(given)
    for name, place in places.items():
        if QUESTION_SETS[name].has_pictures:
            (source,) = QUESTION_SETS[name].sources
            folders[source] = (place.parent if place.is_file() else place,)
    return ImageFiles(folders)


def _named(given: str, flag: str, form: str, known: Iterable[str], if_twice: str) -> dict[str, str]:
    """``NAME=REST,NAME=REST`` by name; what is wrong is told with the flag and its form."""
    found: dict[str, str] = {}
    what = form.partition("=")[0].lower()
    for part in filter(None, given.split(",")):
        name, _, rest = part.partition("=")
        if not rest:
            raise UserError(f"{flag}: '{part}' is not of the form {form}")
        if name not in known:
            raise UserError(
                f"{flag}: there is no {what} '{name}'{did_you_mean(name, known)}; "
                f"there are {', '.join(known)}"
            )
        if name in found:
            raise UserError(f"{flag}: {name} stands twice{if_twice}")
        found[name] = rest
    return found


def read_questions(name: str, place: Path, allow_missing: bool) -> list[Question]:
    """All questions of a benchmark.

    Raises:
        UserError: As its reader; none, or one id twice.
    """
    questions = without_twins(QUESTION_SETS[name].read(place, allow_missing), name)
    if not questions:
        raise UserError(f"{place}: holds no question of {name}")
    content = Counter((one.images, one.captions, one.match) for one in questions)
    if twice := sum(count - 1 for count in content.values()):
        print(
            f"{place}: {twice:,} questions of {name} stand there twice or more, and count as often"
        )
    for image in {image.name for question in questions for image in question.images}:
        if leads_out(image):
            raise UserError(f"{place}: image '{image}' leads out of its folder; correct the file")
    return questions
