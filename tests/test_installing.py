"""Installing: the command in messages, the pinned versions, the Dockerfile."""

import re
import runpy
import shlex
from itertools import chain
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hnc_ds import installing
from hnc_ds.installing import pip_install
from tests.dockerfile import arguments_of, copies, instructions

ROOT = Path(__file__).parents[1]


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments that setup.py passes to setuptools."""
    given: dict = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_a_checkout_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert pip_install("llava") == "pip install -e '.[llava]'"
    assert pip_install() == "pip install -e ."
    monkeypatch.chdir(tmp_path)
    assert shlex.split(pip_install("s3")) == ["pip", "install", "-e", f"{ROOT}[s3]"]


def test_an_installed_wheel_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "ROOT", tmp_path)
    assert pip_install("llava") == "pip install 'hnc-ds[llava]'"
    assert pip_install() == "pip install hnc-ds"


def test_messages_and_pages_name_extras_that_exist(setup: dict) -> None:
    sources = [*(ROOT / "hnc_ds").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text() for path in sources)
    named = re.findall(r"pip_install\(['\"](\w+)['\"]\)|'\.\[([\w,]+)\]'|hnc-ds\[(\w+)\]", text)
    extras = {extra for found in named for extra in "".join(found).split(",")}
    assert extras >= {"llava", "audit", "negclip", "parquet", "s3", "report"}
    assert extras <= setup["extras_require"].keys()
    assert re.findall(r"pip install '?hnc[-_]ds\[\w+\]'?(?! @)", text) == []


def pins() -> dict[str, Requirement]:
    """constraints.txt by package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_constraints_are_exact_versions_for_any_machine() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line for line in lines if line and not line.startswith("#")]
    assert len(found) > 100
    assert [line for line in found if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(pins()) == len(found)
    assert "hnc-ds" not in pins()


def test_constraints_pin_every_requirement_within_its_range(setup: dict) -> None:
    """'make constraints' writes them anew."""
    unpinned = {"gs", "wandb", "trackio"}  # which no test installs
    extras = {n: lines for n, lines in setup["extras_require"].items() if n not in unpinned}
    missing = []
    for line in [*setup["install_requires"], *chain.from_iterable(extras.values())]:
        wanted = Requirement(line)
        pin = pins().get(canonicalize_name(wanted.name))
        version = str(next(iter(pin.specifier))).removeprefix("==") if pin else "none"
        if not pin or not wanted.specifier.contains(version, prereleases=True):
            missing.append(f"{line}: {version}")
    assert missing == []


def test_the_dockerfile_has_a_pinned_base_and_copies_what_exists() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "ENTRYPOINT"}
    (base,) = arguments_of("FROM")
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-devel-ubuntu\d\d\.\d\d", base)
    assert len(copies()) == 4
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    assert let_through[1] == "*"
    for sources, target in copies():
        assert not Path(target).is_absolute()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in let_through


def test_the_dockerfile_installs_packages_and_extras_that_exist(setup: dict) -> None:
    apt, venv, pip = arguments_of("RUN")
    assert apt.startswith("apt-get update && apt-get install -y --no-install-recommends ")
    assert apt.endswith(" && rm -rf /var/lib/apt/lists/*")
    (path,) = arguments_of("ENV")
    assert path == f"PATH={shlex.split(venv)[-1]}/bin:$PATH"
    words = shlex.split(pip)
    assert words[:5] == ["pip", "install", "--no-cache-dir", "-c", "constraints.txt"]
    extras = set(Requirement(words[5].replace(".", "hnc-ds", 1)).extras)
    assert extras == setup["extras_require"].keys() - {"dev"}
    assert arguments_of("ENTRYPOINT") == ['["hnc-ds"]']
    assert setup["entry_points"]["console_scripts"] == ["hnc-ds=hnc_ds.cli:main"]


def test_the_image_runs_as_root_and_says_so() -> None:
    assert "It runs as root" in (ROOT / "Dockerfile").read_text()
    assert "has not been built" in " ".join((ROOT / "docs" / "installing.md").read_text().split())
