"""The wheel, outside of the checkout; and training with nothing but a configuration."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hnc_ds import train
from tests.dockerfile import copy_all

from .conftest import ROOT, environment


def run(command: list[object], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the installed wheel, and an environment that finds nothing else of ours."""
    tmp_path = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    source = copy_all(tmp_path / "src")  # as in the image of the Dockerfile
    wheel = [*pip, "wheel", *quiet, "--wheel-dir", tmp_path / "dist", source]
    run(wheel, tmp_path, dict(os.environ))
    (made,) = (tmp_path / "dist").glob("hnc_ds-*.whl")
    target = tmp_path / "site"
    run([*pip, "install", *quiet, "--target", target, made], tmp_path, dict(os.environ))
    env = environment()
    return target, env | {"PYTHONPATH": str(target), "PATH": f"{target / 'bin'}:{env['PATH']}"}


def test_the_installed_wheel_runs_every_stage_outside_the_checkout(
    installed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    target, env = installed
    hnc_ds: list[object] = [sys.executable, "-m", "hnc_ds.cli"]
    where = run([sys.executable, "-c", "import hnc_ds; print(hnc_ds.__file__)"], tmp_path, env)
    assert Path(where.strip()).is_relative_to(target)
    scenes = [
        "scenes",
        "--out",
        "s",
        "--train",
        "32",
        "--val",
        "12",
        "--size",
        "48",
        "--objects",
        "2",
        "3",
    ]
    run([*hnc_ds, *scenes], tmp_path, env)
    for split in ("train", "val"):
        captions = f"s/{split}.captions.jsonl.gz"
        generate = f"generate --scene-graphs s/{split}_sceneGraphs.json --out {captions}".split()
        run([*hnc_ds, *generate], tmp_path, env)
        pack = f"pack --captions {captions} --images s/images --out s/shards/{split}".split()
        run([*hnc_ds, *pack], tmp_path, env)
    table = run([*hnc_ds, "inspect", "s/shards/train"], tmp_path, env)
    assert "swap" in table
    assert (tmp_path / "s" / "shards" / "train" / "sheet.png").is_file()
    flags = [
        "--steps",
        "2",
        "--log_every",
        "1",
        "--shards",
        "s/shards/train",
        "--run",
        "r",
    ]
    run([*hnc_ds, "slurm-scripts", "."], tmp_path, env)
    run(["bash", "slurm/train.sh", "--deepspeed_config", "cpu", *flags], tmp_path, env)
    evaluate = [
        "evaluate",
        "r",
        "--shards",
        "s/shards/val",
        "--out",
        "r/results/val.json",
    ]
    assert "swap" in run([*hnc_ds, *evaluate], tmp_path, env)
    run([*hnc_ds, "report", "r", "--out", "report.html"], tmp_path, env)
    assert "</html>" in (tmp_path / "report.html").read_text()
    loaded = run([sys.executable, "-c", PYTHON], tmp_path, env)
    results = json.loads((tmp_path / "r" / "results" / "val.json").read_text())
    assert json.loads(loaded.splitlines()[-1]) == results


PYTHON = """
import json, hnc_ds
print(json.dumps(hnc_ds.evaluate(hnc_ds.load("r"), "s/shards/val", workers=0)))
"""


def test_the_installed_wheel_holds_what_the_checkout_has_at_the_top(
    installed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    target, _ = installed
    for name, kinds in (("slurm", ("*.sh", "*.json", "*.md")), ("ds_configs", ("*.json",))):
        theirs = {path.name: path for kind in kinds for path in (ROOT / name).glob(kind)}
        ours = {path.name: path for path in (target / "hnc_ds" / name).iterdir() if path.is_file()}
        assert ours.keys() == theirs.keys()
        assert all(ours[file].read_bytes() == path.read_bytes() for file, path in theirs.items())


def test_pip_takes_the_command_that_messages_name(
    installed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    _, env = installed
    code = "from hnc_ds.installing import pip_install; print(pip_install('llava'))"
    command = run([sys.executable, "-c", code], tmp_path, env).strip()
    assert command == "pip install 'hnc-ds[llava]'"
    offline = ["--dry-run", "--no-index", "--disable-pip-version-check"]
    taken = run([sys.executable, "-m", *shlex.split(command), *offline], tmp_path, env)
    assert "Requirement already satisfied: hnc-ds[llava]" in taken


def test_without_shards_rendered_scenes_are_prepared_once_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer than a thousand, which take minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "DEFAULT_SCENES", replace(train.DEFAULT_SCENES, train=128, val=4))
    arguments = ["--deepspeed_config", "ds_configs/cpu.json", "--steps", "2", "--log_every", "1"]
    assert train.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "no --shards given: training on rendered scenes, kept in data/scenes" in printed
    log = (tmp_path / "runs" / "train-001" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    packed = tmp_path / "data" / "scenes" / "shards" / "train" / "index.json"
    before = packed.stat().st_mtime_ns
    assert train.main(arguments) == 0
    assert packed.stat().st_mtime_ns == before
    assert (tmp_path / "runs" / "train-002" / "log.jsonl").is_file()
