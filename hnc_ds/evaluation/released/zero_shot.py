"""Sets of images with a class each, for zero-shot classification, in the folders where they lie.

The folder of --data is one set or holds several:

    classnames.json, templates.json         and a folder of images a class
    classnames.txt, test/0.tar, ...         a WebDataset folder of CLIP_benchmark
    n01440764/, ... or val/n01440764/, ...  ImageNet, or a set of some of its classes
    cifar-10-batches-py/, food-101/, ...    the sets of KNOWN, as torchvision lays them down

Class names and templates of the last two are in zero_shot.json.

Source: the test splits of torchvision's data sets, which CLIP_benchmark uses; all images where
there is no such split (Caltech-101, EuroSAT).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from hnc_ds.archives import TAR, member_bytes, tar_members
from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import (
    converted,
    file_in,
    lines_of,
    read_json,
    read_text,
)
from hnc_ds.evaluation.released.images import read_pixels
from hnc_ds.evaluation.released.rules import FIRST, ImageRef, Question
from hnc_ds.images import SUFFIXES
from hnc_ds.launch import is_rank_zero
from hnc_ds.reading import AGAIN, read_bytes
from hnc_ds.records import NOT_GROUPS

NAMES_FILE, TEMPLATES_FILE = "classnames.json", "templates.json"
WDS_NAMES_FILE, WDS_TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"
CLASSES_SOURCE = "zero-shot"
PLACES = ("{c}", "{}")
"""Placeholders of the class name in a template."""

CLASSES_BENCHMARK = "zero-shot classification"
OVER_SETS = "_mean_over_sets"
"""Suffix of metrics that are a mean over the sets that are there; their count is that of the
sets."""

Labelled = tuple[str, str]
"""An image by its name from the folder of --data, and the label of its class."""

Images = Callable[[bool], Iterator[Labelled]]
"""Reads the images of a set; the flag allows classes without any."""


class ImageSet(NamedTuple):
    """A set of images with its classes."""

    name: str
    """Group in results; empty if the folder of --data is the set."""
    names: Mapping[str, str]
    """Name of each class in prompts, by its label."""
    templates: list[str]
    images: Images


def read_classes(place: Path, allow_missing: bool = False) -> Iterator[Question]:
    """One question per image of every set; its caption is the name of the class. Groups are LABEL
    if the folder is one set, else SET/LABEL; labels may have slashes, as the aircraft F/A-18.

    Raises:
        UserError: As ``sets_in``; a class or a set has no image, a file is damaged, or the folder
            of a set lacks the file that it is known by.
    """
    sets = sets_in(place)
    if sets[0].name:
        _report_incomplete(place, [one.name for one in sets], allow_missing)
    for one in sets:
        is_empty = bool(one.name)
        for name, label in one.images(allow_missing):
            is_empty = False
            image = ImageRef(CLASSES_SOURCE, name)
            group = f"{one.name}/{label}" if one.name else label
            yield Question(name, (image,), (one.names[label],), FIRST, group)
        if is_empty:
            raise UserError(f"{place}: no image of {one.name}; copy it again, or remove its folder")


def _report_incomplete(place: Path, names: Sequence[str], allow_missing: bool) -> None:
    """Raise UserError for, or print, folders of KNOWN that are none of the sets."""
    for name, (files, _) in KNOWN.items():
        folders = {PurePosixPath(file).parts[0] for file in files} - set(names)
        if name not in names and any((place / folder).is_dir() for folder in folders):
            lacks = f"{place / files[0]} is missing, by which {name} is known"
            if not allow_missing:
                raise UserError(f"{lacks}; copy it, or give --allow-missing")
            if is_rank_zero():
                print(f"{lacks}; the other sets are measured")


def sets_in(place: Path) -> list[ImageSet]:
    """The set that a folder is, or the sets that it holds, by name.

    Raises:
        UserError: There is none, two have one name, one has the name of a mean, or names and
            folders do not match.
    """
    if not place.is_dir():
        raise UserError(f"{place}: not a folder; {CLASSES_BENCHMARK} needs one")
    if (whole := _own_set(place, place, "")) is not None:
        return [whole]
    found = [one for name in KNOWN if (one := _known_set(place, name))]
    for folder in _folders_in(place):
        if (one := _own_set(place, folder, folder.name)) is not None:
            found.append(one)
    if not found:
        raise UserError(
            f"{place}: no {NAMES_FILE} and no set of images; {CLASSES_BENCHMARK} needs a folder "
            f"with it or {WDS_NAMES_FILE}, or the folder where {', '.join(FOLDERS)} lie"
        )
    names = [one.name for one in found]
    if reserved := sorted(NOT_GROUPS.intersection(names)):
        raise UserError(f"{place}: {reserved[0]} is the name of a mean; rename this folder")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UserError(f"{place}: two sets are called {twice}; rename the folder {twice}")
    return sorted(found, key=lambda one: one.name)


def _own_set(place: Path, folder: Path, name: str) -> ImageSet | None:
    """The set that a folder is by its own files; None if it is none."""
    if (folder / NAMES_FILE).is_file():
        names = class_names(folder)
        images = partial(_in_folders, place, folder, names)
        return ImageSet(name, names, templates(folder), images)
    if (folder / WDS_NAMES_FILE).is_file():
        return _web_dataset(place, folder, name)
    for inner in (folder, folder / "val"):
        if inner.is_dir() and (wnids := [f.name for f in _folders_in(inner) if WNID(f.name)]):
            return _imagenet(place, inner, name, wnids)
    return None


def _folders_in(place: Path) -> list[Path]:
    return sorted(each for each in place.iterdir() if each.is_dir())


def _in_folders(
    place: Path, folder: Path, names: Mapping[str, str], allow_missing: bool
) -> Iterator[Labelled]:
    """Images of a folder a class."""
    for label, name in names.items():
        images = sorted(p for p in (folder / label).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not images and not allow_missing:
            raise UserError(
                f"{folder / label}: no image of the class '{name}'; add images, or give "
                "--allow-missing"
            )
        for path in images:
            yield path.relative_to(place).as_posix(), label


def class_names(place: Path) -> dict[str, str]:
    """Names by folder, in the order of the folders, from classnames.json.

    The file holds {CLASS: name} by folder, or a list of names in the order of the folders, as in
    CLIP_benchmark and torchvision's ImageFolder.

    Raises:
        UserError: As ``read_json``; folders and names do not match.
    """
    path = file_in(place, NAMES_FILE, CLASSES_BENCHMARK)
    content = read_json(path, object, CLASSES_BENCHMARK)
    folders = [each.name for each in _folders_in(place)]
    if isinstance(content, list):
        listed = converted(content, list[str], f"{path}", CLASSES_BENCHMARK)
        return _by_folder(listed, folders, path)
    names = dict(sorted(converted(content, dict[str, str], f"{path}", CLASSES_BENCHMARK).items()))
    if unnamed := sorted(set(folders) - set(names)):
        raise UserError(f"{path}: no name for the folder {unnamed[0]}, and {len(unnamed) - 1} more")
    return names


def _by_folder(names: list[str], folders: list[str], where: Path) -> dict[str, str]:
    if len(names) != len(folders):
        raise UserError(f"{where}: {len(names)} names for {len(folders)} folders")
    return dict(zip(folders, names, strict=True))


def templates(place: Path) -> list[str]:
    """Prompt templates with one placeholder each, from templates.json.

    Raises:
        UserError: As ``read_json``; a template has no or several placeholders, or there is none.
    """
    path = file_in(place, TEMPLATES_FILE, CLASSES_BENCHMARK)
    return _with_placeholder(read_json(path, list[str], CLASSES_BENCHMARK), path)


def _with_placeholder(content: list[str], path: Path) -> list[str]:
    wrong = [one for one in content if sum(one.count(p) for p in PLACES) != 1]
    if wrong or not content:
        what = f"'{wrong[0]}'" if wrong else "an empty list"
        raise UserError(f"{path}: {what} does not have one placeholder, {{c}} or {{}}")
    return content


def prompts(template_list: list[str], name: str) -> list[str]:
    """A class name in every template."""
    return [one.replace("{c}", name).replace("{}", name) for one in template_list]


Names = dict[str, str] | list[str]
"""Names of classes by label, or in the order of folders or numbers."""


class _Published(msgspec.Struct):
    names: Names
    templates: list[str]


class _PublishedSets(msgspec.Struct):
    source: str
    sets: dict[str, _Published]


@lru_cache(maxsize=1)
def published() -> dict[str, _Published]:
    """Class names and templates by set."""
    content = Path(__file__).with_name("zero_shot.json").read_bytes()
    return msgspec.json.decode(content, type=_PublishedSets).sets


WNID = re.compile(r"n\d{8}").fullmatch


def _imagenet(place: Path, folder: Path, name: str, wnids: list[str]) -> ImageSet:
    """The classes of ImageNet that have a folder, as in ImageNet-A and ImageNet-R."""
    known = published()["imagenet"]
    names = converted(known.names, dict[str, str], "", CLASSES_BENCHMARK)
    if unknown := [wnid for wnid in wnids if wnid not in names]:
        raise UserError(f"{folder / unknown[0]}: not a class of ImageNet's 1,000; remove it")
    there = {wnid: names[wnid] for wnid in wnids}
    return ImageSet(name, there, known.templates, partial(_in_folders, place, folder, there))


def _web_dataset(place: Path, folder: Path, name: str) -> ImageSet | None:
    """A folder of CLIP_benchmark; None in a suite if it is not about classes.

    Source: CLIP_benchmark (clip_benchmark/webdataset_builder.py and datasets/builder.py).
    """
    kind = folder / "dataset_type.txt"
    if kind.is_file() and (what := read_text(kind, CLASSES_BENCHMARK).strip()) != "classification":
        if name:
            return None
        raise UserError(
            f"{kind}: a set for {what[:40]!r}; {CLASSES_BENCHMARK} needs one class an image"
        )
    names = _stripped_lines(folder / WDS_NAMES_FILE)
    path = folder / WDS_TEMPLATES_FILE
    by_number = {str(number): one for number, one in enumerate(names)}
    images = partial(_in_tars, place, folder / "test", by_number)
    return ImageSet(name, by_number, _with_placeholder(_stripped_lines(path), path), images)


def _stripped_lines(path: Path) -> list[str]:
    lines = lines_of(read_text(path, CLASSES_BENCHMARK))
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _in_tars(
    place: Path, folder: Path, names: Mapping[str, str], allow_missing: bool
) -> Iterator[Labelled]:
    """Images KEY.webp (or of another kind) with the number of their class in KEY.cls."""
    counted = folder / "nshards.txt"
    count = read_text(counted, CLASSES_BENCHMARK).strip()
    if not (count.isascii() and count.isdecimal() and int(count[:6]) > 0):
        raise UserError(f"{counted}: {count[:40]!r} is not a number of tars; {AGAIN}")
    for number in range(int(count[:6])):
        path = folder / f"{number}{TAR}"
        if path.is_file():
            yield from _in_tar(place, path, names)
        elif not allow_missing:
            raise UserError(f"{path}: no such file of {count}; copy it, or give --allow-missing")


def _in_tar(place: Path, path: Path, names: Mapping[str, str]) -> Iterator[Labelled]:
    image_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for member in tar_members(path):
        key, _, kind = PurePosixPath(member).name.partition(".")
        key = str(PurePosixPath(member).parent / key)
        if f".{kind.lower()}" in SUFFIXES:
            image_of[key] = member
        elif kind == "cls":
            label_of[key] = _label(path, member, names)
    if alone := sorted(image_of.keys() ^ label_of.keys()):
        raise UserError(f"{path}: {alone[0]} is not an image with its class (.cls); {AGAIN}")
    for key, member in image_of.items():
        yield f"{path.relative_to(place).as_posix()}/{member}", label_of[key]


def _label(path: Path, member: str, names: Mapping[str, str]) -> str:
    label = member_bytes(path, member)[:20].decode("ascii", "replace").strip()
    if label not in names:
        raise UserError(f"{path}: {member} is {label!r}, not one of {len(names)} classes; {AGAIN}")
    return label


Layout = Callable[[Path, str, Names], tuple[dict[str, str], Images]]
"""From the folder of --data, the file or folder below it, and the published names: names by label,
and the images."""


def _of_folders(place: Path, below: str, names: Names) -> tuple[dict[str, str], Images]:
    """A folder a class: listed names are in the order of the folders."""
    if isinstance(names, list):
        folders = [each.name for each in _folders_in(place / below)]
        names = _by_folder(names, folders, place / below)
    return names, partial(_in_folders, place, place / below, names)


def _of_pixels(
    place: Path, below: str, names: Names, classes: str = "", header: int = 0, first: int = 0
) -> tuple[dict[str, str], Images]:
    """A file of PIXELS, with the numbers of the classes in it or in a file beside it.

    Args:
        place: Folder of --data.
        below: The file.
        names: In the order of the numbers.
        classes: File of the numbers, a byte each.
        header: Bytes before them.
        first: Number of the first class.
    """
    by_number = {str(number): name for number, name in enumerate(names, first)}

    def images(_: bool) -> Iterator[Labelled]:
        path, beside = place / below, place / below
        pixels_NHWC, labels = read_pixels(path)
        if classes:
            beside = path.with_name(classes)
            labels = list(read_bytes(beside)[header:])
        wrong = [label for label in labels if str(label) not in by_number]
        if wrong or len(labels) != len(pixels_NHWC):
            what = f"class {wrong[0]}" if wrong else f"{len(labels):,} classes"
            raise UserError(
                f"{beside}: {what} for {len(pixels_NHWC):,} images of {len(names)} classes; {AGAIN}"
            )
        for number, label in enumerate(labels):
            yield f"{below}/{number}", str(label)

    return by_number, images


def _of_list(
    place: Path, below: str, names: Names, line: str, image: str
) -> tuple[dict[str, str], Images]:
    """A list of images, one a line.

    Args:
        place: Folder of --data.
        below: The list.
        names: By label.
        line: Pattern of a line, with the groups ``image`` and ``label``.
        image: Name of the image from ``place``, of the group ``image``.
    """
    assert isinstance(names, dict)
    known = names

    def images(_: bool) -> Iterator[Labelled]:
        for number, text in enumerate(_stripped_lines(place / below), start=1):
            found = re.fullmatch(line, text)
            if found is None or found["label"] not in known:
                raise UserError(
                    f"{place / below}:{number}: {text[:60]!r} is not an image of a known class; "
                    f"{AGAIN}"
                )
            yield image.format(found["image"]), found["label"]

    return known, images


_CLASS_AND_NUMBER = r"(?P<image>(?P<label>[^/]+)/[^/]+)"
KNOWN: dict[str, tuple[tuple[str, ...], Layout]] = {
    "aircraft": (
        ("fgvc-aircraft-2013b/data/images_variant_test.txt",),
        partial(
            _of_list,
            line=r"(?P<image>\d+) (?P<label>.+)",
            image="fgvc-aircraft-2013b/data/images/{}.jpg",
        ),
    ),
    "caltech101": (("caltech101/101_ObjectCategories",), _of_folders),
    "cifar10": (
        ("cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-py/test_batch"),
        _of_pixels,
    ),
    "cifar100": (("cifar-100-binary/test.bin", "cifar-100-python/test"), _of_pixels),
    "country211": (("country211/test",), _of_folders),
    "dtd": (
        ("dtd/dtd/labels/test1.txt",),
        partial(_of_list, line=_CLASS_AND_NUMBER, image="dtd/dtd/images/{}"),
    ),
    "eurosat": (("eurosat/2750",), _of_folders),
    "food101": (
        ("food-101/meta/test.txt",),
        partial(_of_list, line=_CLASS_AND_NUMBER, image="food-101/images/{}.jpg"),
    ),
    "mnist": (
        ("MNIST/raw/t10k-images-idx3-ubyte",),
        partial(_of_pixels, classes="t10k-labels-idx1-ubyte", header=8),
    ),
    "pets": (
        ("oxford-iiit-pet/annotations/test.txt",),
        partial(
            _of_list,
            line=r"(?P<image>(?P<label>\D+)_\d+) \d+ \d+ \d+",
            image="oxford-iiit-pet/images/{}.jpg",
        ),
    ),
    "rendered-sst2": (("rendered-sst2/test",), _of_folders),
    "stl10": (("stl10_binary/test_X.bin",), partial(_of_pixels, classes="test_y.bin", first=1)),
}
"""The first of these files or folders that is there, and how it is read; by name of the set."""

FOLDERS = tuple(PurePosixPath(file).parts[0] for files, _ in KNOWN.values() for file in files)
"""Folders of these sets."""


def _known_set(place: Path, name: str) -> ImageSet | None:
    files, layout = KNOWN[name]
    below = next((file for file in files if (place / file).exists()), None)
    if below is None:
        return None
    known = published()[name]
    names, images = layout(place, below, known.names)
    return ImageSet(name, names, known.templates, images)
