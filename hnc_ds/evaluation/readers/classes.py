"""A folder of pictures by class, with the names of the classes and templates to put them into."""

from collections.abc import Iterator
from pathlib import Path

from hnc_ds.errors import UserError
from hnc_ds.evaluation.question import FIRST, ImageRef, Question
from hnc_ds.evaluation.readers.annotations import converted, file_in, read_json
from hnc_ds.images import SUFFIXES

NAMES_FILE, TEMPLATES_FILE = "classnames.json", "templates.json"
SOURCE = "zero-shot"
PLACES = ("{c}", "{}")
"""Where a template takes the name of a class."""

BENCHMARK = "zero-shot classification"


def read_classes(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """A question for each picture of FOLDER/CLASS/; its caption is the name of the class.

    classnames.json: {CLASS: name} by folder, or a list of names in the order of the folders, as
    CLIP_benchmark and torchvision's ImageFolder have them.

    Raises:
        UserError: As the readers of annotations; a folder without a name, or a name without one.
    """
    names = class_names(place)
    templates(place)  # what is wrong with them is told before anything is encoded
    for folder, name in names.items():
        pictures = sorted(p for p in (place / folder).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not pictures and not allow_missing:
            raise UserError(
                f"{place / folder}: no picture of the class '{name}'; put them there, or give "
                "--allow-missing"
            )
        for path in pictures:
            image = ImageRef(SOURCE, path.relative_to(place).as_posix())
            yield Question(image.name, (image,), (name,), FIRST, folder)


def class_names(place: Path) -> dict[str, str]:
    """Names by folder, in the order of the folders.

    Raises:
        UserError: As ``read_classes``.
    """
    path = file_in(place, NAMES_FILE, BENCHMARK)
    content = read_json(path, object, BENCHMARK)
    folders = sorted(each.name for each in place.iterdir() if each.is_dir())
    if isinstance(content, list):
        if len(content) != len(folders):
            raise UserError(f"{path}: {len(content)} names for {len(folders)} folders")
        listed = converted(content, list[str], f"{path}", BENCHMARK)
        return dict(zip(folders, listed, strict=True))
    names = dict(sorted(converted(content, dict[str, str], f"{path}", BENCHMARK).items()))
    if unnamed := sorted(set(folders) - set(names)):
        raise UserError(f"{path}: no name for the folder {unnamed[0]}, and {len(unnamed) - 1} more")
    return names


def templates(place: Path) -> list[str]:
    """Templates with one place each for the name of a class.

    Raises:
        UserError: As the readers of annotations; a template without a place, or none.
    """
    path = file_in(place, TEMPLATES_FILE, BENCHMARK)
    found = read_json(path, list[str], BENCHMARK)
    wrong = [one for one in found if sum(one.count(p) for p in PLACES) != 1]
    if wrong or not found:
        told = f"'{wrong[0]}'" if wrong else "an empty list"
        raise UserError(f"{path}: {told} has not one place for a name, {{c}} or {{}}")
    return found


def prompts(template_list: list[str], name: str) -> list[str]:
    """The name put into every template."""
    return [one.replace("{c}", name).replace("{}", name) for one in template_list]
