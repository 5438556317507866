"""The wheel, outside of the checkout; and training with nothing but a configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Command, environment


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


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with the installed wheel, and an environment that finds nothing else of ours."""
    pip = [sys.executable, "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "wheel", *quiet, "--wheel-dir", tmp_path / "dist", ROOT], tmp_path, dict(os.environ))
    (wheel,) = (tmp_path / "dist").glob("hnc_ds-*.whl")
    target = tmp_path / "site"
    run([*pip, "install", *quiet, "--target", target, wheel], tmp_path, dict(os.environ))
    return target, environment() | {"PYTHONPATH": str(target)}


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
    run([*hnc_ds, "train", "--deepspeed_config", "cpu", *flags], tmp_path, env)
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


def test_without_shards_rendered_scenes_are_prepared_once_and_trained_on(
    tmp_path: Path, deepspeed: Command
) -> None:
    arguments = ["--deepspeed_config", "ds_configs/cpu.json", "--steps", 2, "--log_every", 1]
    done = deepspeed(1, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no --shards given: training on rendered scenes, kept in data/scenes" in done.stdout
    log = (tmp_path / "runs" / "train-001" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    packed = tmp_path / "data" / "scenes" / "shards" / "train" / "index.json"
    before = packed.stat().st_mtime_ns
    again = deepspeed(1, *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert packed.stat().st_mtime_ns == before
    assert (tmp_path / "runs" / "train-002" / "log.jsonl").is_file()
