"""What models are evaluated on: shards and released benchmarks, read and checked once.

--data sugarcrepe=DIR,valse=DIR    --images coco2017=DIR,vg=DIR:DIR2

'hnc-ds benchmarks' lists what is needed and found.
"""

import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hnc_ds.archives import leads_out
from hnc_ds.config import BenchmarksConfig, MeasuredOn
from hnc_ds.errors import UserError, counted, did_you_mean
from hnc_ds.evaluation.benchmarks import HARD_NEGATIVES, HELD_OUT, RELEASED, chosen_benchmarks
from hnc_ds.evaluation.corruptions import Condition, read_conditions
from hnc_ds.evaluation.released.annotations import with_unique_ids
from hnc_ds.evaluation.released.images import SOURCES, ImageFiles
from hnc_ds.evaluation.released.rules import Question
from hnc_ds.shards.reader import ShardReader


def read_paths(given: str) -> dict[str, Path]:
    """``sugarcrepe=DIR,valse=DIR`` as paths by benchmark, in the order of the table.

    Raises:
        UserError: The text is malformed, a benchmark or path does not exist, or a benchmark is
            named twice.
    """
    named = _named(given, "--data", "BENCHMARK=PATH", RELEASED, "")
    for name, path in named.items():
        if not Path(path).exists():
            raise UserError(f"--data: {name}={path}: no such file or folder")
    return {name: Path(named[name]) for name in RELEASED if name in named}


def read_image_folders(given: str) -> dict[str, tuple[Path, ...]]:
    """``coco2017=DIR,vg=DIR:DIR2`` as folders by source.

    Raises:
        UserError: The text is malformed, a source or folder does not exist, or a source is named
            twice.
    """
    if_twice = f"; join its folders by '{os.pathsep}'"
    named = _named(given, "--images", "SOURCE=FOLDER", SOURCES, if_twice)
    folders = {source: tuple(map(Path, p.split(os.pathsep))) for source, p in named.items()}
    for source, own in folders.items():
        for folder in own:
            if not folder.is_dir():
                raise UserError(f"--images: {source}={folder}: no such folder")
    return folders


def find_images(given: str, paths: Mapping[str, Path]) -> ImageFiles:
    """Images in the folders of --images, and those that benchmarks bring themselves.

    Raises:
        UserError: As ``read_image_folders``.
    """
    folders = read_image_folders(given)
    for name, path in paths.items():
        if RELEASED[name].has_images:
            (source,) = RELEASED[name].sources
            folders[source] = (path.parent if path.is_file() else path,)
    return ImageFiles(folders)


def _named(given: str, flag: str, form: str, known: Iterable[str], if_twice: str) -> dict[str, str]:
    """``NAME=REST,NAME=REST`` by name; errors name the flag and its form."""
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
            raise UserError(f"{flag}: {name} is given twice{if_twice}")
        found[name] = rest
    return found


def read_questions(name: str, path: Path, allow_missing: bool) -> list[Question]:
    """All questions of a benchmark.

    Raises:
        UserError: As its reader; there is no question, or an id occurs twice.
    """
    questions = with_unique_ids(RELEASED[name].read(path, allow_missing), name)
    if not questions:
        raise UserError(f"{path}: holds no question of {name}")
    content = Counter((one.images, one.captions, one.match) for one in questions)
    if twice := sum(count - 1 for count in content.values()):
        print(f"{path}: {twice:,} questions of {name} are duplicates of others, and count again")
    for image in {image.name for question in questions for image in question.images}:
        if leads_out(image):
            raise UserError(f"{path}: image '{image}' leads out of its folder; correct the file")
    return questions


WIDTH = 100


def list_benchmarks(config: BenchmarksConfig) -> None:
    """Print every benchmark, and for those in --data how many questions and images exist.

    Raises:
        UserError: As the readers of annotations.
    """
    paths = read_paths(config.data)
    files = find_images(config.images, paths)
    for name, measure in HELD_OUT.items():
        _print(name, measure.title, {"about": measure.about, "needs": "--shards"})
    for name, known in RELEASED.items():
        facts = {
            "about": known.about,
            "needs": f"--data {name}=PATH with {known.files}",
            "images": "; ".join(f"{one}: {SOURCES[one].holds}" for one in known.sources),
            "from": known.origin,
            "licence": known.licence,
        }
        if name in paths:
            questions = read_questions(name, paths[name], allow_missing=True)
            images = {image for question in questions for image in question.images}
            found = sum(files.find(image) is not None for image in images)
            released = sum(known.released.values())
            of = f" of {released:,} in the release" if released else ""
            facts["found"] = (
                f"{counted(len(questions), 'question')}{of}, {found:,} of {len(images):,} images"
            )
        _print(name, known.title, facts)
    print("Sources of images, for --images SOURCE=FOLDER:FOLDER,...\n")
    for name, source in SOURCES.items():
        print(f"  {name:16}{source.origin}  (licence: {source.licence})")


def _print(name: str, title: str, facts: dict[str, str]) -> None:
    print(f"{name}: {title}")
    for fact, text in facts.items():
        lines = textwrap.wrap(f"{fact:10}{text}", WIDTH - 2, subsequent_indent=" " * 10)
        print("".join(f"  {line}\n" for line in lines), end="")
    print()


@dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """Data and settings of an evaluation that are the same for all models."""

    reader: ShardReader | None
    held_out: tuple[str, ...]
    """Measures on the shards; empty without shards."""
    questions: Mapping[str, list[Question]]
    """By released benchmark."""
    paths: Mapping[str, Path]
    """Path of --data by released benchmark."""
    images: ImageFiles
    allow_missing: bool
    """Leave out questions without their images."""
    conditions: list[Condition]
    """Corruptions to measure on as well."""
    seed: int
    """Seed of intervals and corruptions."""

    @property
    def versions(self) -> dict[str, int]:
        """Version of each benchmark."""
        held_out = {name: HELD_OUT[name].version for name in self.held_out}
        return held_out | {name: RELEASED[name].version for name in self.questions}


def _measurable(
    chosen: tuple[str, ...], reader: ShardReader, named: Sequence[str]
) -> tuple[str, ...]:
    """Without pairs where the shards hold no hard negatives, unless they are asked for by name."""
    if named or reader.index.negatives:
        return chosen
    return tuple(name for name in chosen if name != HARD_NEGATIVES)


def read_inputs(config: MeasuredOn, corruptions: Sequence[str] = ()) -> EvaluationInputs:
    """Read the data of an evaluation.

    Raises:
        UserError: Shards, a benchmark, a corruption or files do not exist; or neither shards nor
            benchmarks are given.
    """
    chosen, conditions = chosen_benchmarks(config.benchmarks), read_conditions(corruptions)
    paths = read_paths(config.data)
    files = find_images(config.images, paths)
    if config.shards is None and not paths:
        raise UserError("evaluate: nothing to measure on; give --shards, or --data and --images")
    reader = None if config.shards is None else ShardReader(config.shards)
    missing = config.allow_missing
    return EvaluationInputs(
        reader=reader,
        held_out=() if reader is None else _measurable(chosen, reader, config.benchmarks),
        questions={name: read_questions(name, path, missing) for name, path in paths.items()},
        paths=paths,
        images=files,
        allow_missing=missing,
        conditions=conditions,
        seed=config.seed,
    )
