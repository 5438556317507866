"""hnc-ds slurm-scripts: the jobs of slurm/ in a folder of one's own."""

import os
from pathlib import Path

import pytest

from hnc_ds.cli import main

OURS = Path(__file__).parents[1] / "slurm"


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command; its exit status and what it printed."""

    def run(*flags: object) -> tuple[int, str]:
        words = ["hnc-ds", "slurm-scripts", *map(str, flags)]
        monkeypatch.setattr("sys.argv", words)
        status = main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_all_files_are_written_and_scripts_can_be_run(write, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    status, printed = write(project)
    slurm = project / "slurm"
    assert status == 0
    assert contents(slurm) == contents(OURS)
    assert len(contents(slurm)) > 15
    assert (slurm / "logs").is_dir()
    assert printed == (
        f"slurm-scripts: {len(contents(OURS))} files written to {slurm}; next: edit "
        f"{slurm}/site.sh, then submit jobs from {project}: sbatch slurm/doctor.sh\n"
    )
    for name, content in contents(slurm).items():
        assert os.access(slurm / name, os.X_OK) == content.startswith(b"#!"), name
    assert os.access(slurm / "train.sh", os.X_OK)


def test_a_second_time_nothing_is_written(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(".")
    before = {path: path.stat().st_mtime_ns for path in Path("slurm").iterdir()}
    status, printed = write(".")
    assert status == 0
    assert printed.startswith("slurm-scripts: slurm is up to date; next: edit slurm/site.sh")
    assert "from this folder" in printed
    assert {path: path.stat().st_mtime_ns for path in Path("slurm").iterdir()} == before


@pytest.mark.parametrize("name", ["site.sh", "train.sh"])
def test_a_file_that_was_changed_is_not_overwritten(write, tmp_path: Path, name: str) -> None:
    write(tmp_path)
    changed = tmp_path / "slurm" / name
    changed.write_text("mine")
    (tmp_path / "slurm" / "job.sh").unlink()
    status, printed = write(tmp_path)
    assert status == 2
    assert printed == (
        f"hnc-ds: {changed}: differs from this version's; name another folder, or pass "
        "--overwrite, which keeps only site.sh\n"
    )
    assert changed.read_text() == "mine"
    assert not (tmp_path / "slurm" / "job.sh").exists()


def test_overwrite_replaces_all_but_the_settings_of_the_cluster(write, tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("site.sh", "train.sh", "README.md"):
        (tmp_path / "slurm" / name).write_text("mine")
    status, printed = write(tmp_path)
    assert status == 2
    assert "slurm/README.md: differs from this version's (and 2 more files)" in printed
    status, printed = write(tmp_path, "--overwrite")
    assert status == 0
    assert "slurm-scripts: 2 files written" in printed
    assert contents(tmp_path / "slurm") == contents(OURS) | {"site.sh": b"mine"}
    assert os.access(tmp_path / "slurm" / "train.sh", os.X_OK)


def test_a_folder_that_cannot_be_written_is_named(write, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, printed = write(tmp_path / "file")
    assert status == 2
    assert printed.startswith(f"hnc-ds: {tmp_path}/file/slurm/logs: cannot be written")
