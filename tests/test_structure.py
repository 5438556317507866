"""Rules of the house that import-linter cannot express."""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hnc_ds"


def sources() -> dict[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def test_only_one_file_uses_torch_distributed() -> None:
    statement = re.compile(r"^\s*(import|from) torch\.distributed", re.MULTILINE)
    assert {name for name, text in sources().items() if statement.search(text)} == {
        "distributed.py"
    }


def test_no_module_beside_the_script_hides_a_standard_one() -> None:
    """Python puts the folder of train.py first on the path when it is started by path."""
    beside = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not beside & set(sys.stdlib_module_names)


def test_no_module_is_a_catch_all() -> None:
    names = {Path(name).stem for name in sources()}
    assert not names & {"utils", "common", "helpers", "base", "misc"}


def test_nothing_unpickles() -> None:
    for name, text in sources().items():
        assert all("weights_only=True" in call for call in re.findall(r"torch\.load\(.*", text)), (
            name
        )
        assert not re.search(r"\bpickle\.loads?\(", text), name
