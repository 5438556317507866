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


def test_only_one_file_opens_tensorboard_wandb_and_trackio() -> None:
    statement = re.compile(r"(import|from) (torch\.utils\.tensorboard|wandb|trackio)\b")
    assert {name for name, text in sources().items() if statement.search(text)} == {"trackers.py"}


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


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:hnc_ds|tests|speed|experiments|slurm|docs)/[\w./]*)`", text)
    assert len(named) > 60
    assert [name for name in named if not (PACKAGE.parent / name).exists()] == []
    tests = "\n".join(path.read_text() for path in (PACKAGE.parent / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", text) if name not in tests] == []
