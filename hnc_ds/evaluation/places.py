"""Where the user has the files of benchmarks: --data sugarcrepe=DIR,valse=DIR."""

from pathlib import Path

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.evaluation.readers.annotations import without_twins


def read_places(given: str) -> dict[str, Path]:
    """``sugarcrepe=DIR,valse=DIR`` as places by benchmark, in the order of the table.

    Raises:
        UserError: Not of that form, no such benchmark, no such place, a benchmark twice.
    """
    places: dict[str, Path] = {}
    for part in filter(None, given.split(",")):
        name, equals, place = part.partition("=")
        if not equals or not place:
            raise UserError(f"--data: '{part}' is not of the form BENCHMARK=PLACE")
        if name not in QUESTION_SETS:
            raise UserError(
                f"--data: there is no benchmark '{name}'{did_you_mean(name, QUESTION_SETS)}; "
                f"there are {', '.join(QUESTION_SETS)}"
            )
        if name in places:
            raise UserError(f"--data: {name} stands twice")
        places[name] = Path(place)
        if not places[name].exists():
            raise UserError(f"--data: {part}: no such file or folder")
    return {name: places[name] for name in QUESTION_SETS if name in places}


def read_questions(name: str, place: Path, allow_missing: bool) -> list[Question]:
    """All questions of a benchmark.

    Raises:
        UserError: As its reader; none, or one id twice.
    """
    questions = without_twins(QUESTION_SETS[name].read(place, allow_missing), name)
    if not questions:
        raise UserError(f"{place}: holds no question of {name}")
    return questions
