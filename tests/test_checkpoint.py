"""Run folders and checkpoints: complete or absent, and readable by open_clip itself."""

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import pytest
import torch

from hnc_ds import checkpoint
from hnc_ds.checkpoint import complete_checkpoints, load_trained, newest_checkpoint
from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    checkpoint.start_run(tmp_path / "run", {"settings": {}})
    return tmp_path / "run"


def save(run: Path, step: int, keep_last: int = 2, seed: int = 0) -> tuple[Clip, Path]:
    clip = load_model(ModelConfig(), seed)
    weights = {name: p.detach() for name, p in clip.named_parameters()}
    moments = {f"{name}/exp_avg": torch.full_like(p, step) for name, p in weights.items()}
    made = checkpoint.contents(clip, weights, moments, {}, {"optimizer_step": float(step)})
    return clip, checkpoint.write(run, step, made, keep_last)


def test_what_was_saved_is_read_back(run: Path) -> None:
    clip, folder = save(run, 30)
    saved = checkpoint.read(folder)
    assert saved.step == 30
    assert saved.scalars == {"optimizer_step": 30.0}
    assert set(saved.moments) == {f"{name}/exp_avg" for name, _ in clip.named_parameters()}
    assert all((moment == 30).all() for moment in saved.moments.values())
    other = load_model(ModelConfig(), seed=9)
    checkpoint.load_saved(other, saved)
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, clip.get_parameter(name)), name


def test_others_may_read_a_checkpoint_as_any_new_file(run: Path) -> None:
    _, folder = save(run, 1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    (run / "new").touch()
    modes = {path.name: path.stat().st_mode for path in files}
    assert modes == dict.fromkeys(modes, (run / "new").stat().st_mode)


@pytest.mark.parametrize("name", ["best", "step-best", "nan"])
def test_a_checkpoint_that_was_copied_under_another_name_is_a_model_too(
    run: Path, tmp_path: Path, name: str
) -> None:
    model, folder = save(run, 3)
    copy = shutil.copytree(folder, tmp_path / "copies" / name)
    loaded = load_trained(copy, torch.device("cpu"))
    weights = (each.towers.visual.conv1.weight for each in (model, loaded))
    assert torch.equal(*weights)


def test_open_clip_opens_a_checkpoint_as_it_is(run: Path) -> None:
    clip, folder = save(run, 10)
    towers = open_clip.create_model(f"local-dir:{folder}")
    for name, parameter in towers.named_parameters():
        expected = clip.get_parameter(f"towers.{name}")
        assert torch.equal(parameter, expected.reshape(parameter.shape)), name


def test_the_last_checkpoints_are_kept_and_the_newest_is_found(run: Path) -> None:
    for step in (5, 10, 15):
        save(run, step, keep_last=2)
    assert [path.name for path in complete_checkpoints(run)] == ["step-000010", "step-000015"]
    assert newest_checkpoint(run).name == "step-000015"


def test_a_run_folder_and_a_checkpoint_folder_both_load(run: Path) -> None:
    save(run, 5, seed=1)
    clip, folder = save(run, 10, seed=2)
    for path in (run, folder):
        loaded = load_trained(path, torch.device("cpu"))
        assert not loaded.training
        assert torch.equal(loaded.towers.visual.conv1.weight, clip.towers.visual.conv1.weight)


def test_checkpoints_are_ordered_by_their_step_and_not_by_their_name(run: Path) -> None:
    for step in (999_500, 1_000_000):
        save(run, step)
    assert newest_checkpoint(run).name == "step-1000000"
    save(run, 1_000_500, keep_last=2)
    kept = [path.name for path in complete_checkpoints(run)]
    assert kept == ["step-1000000", "step-1000500"]
    (run / "checkpoints" / "step-1000500.copy").mkdir()  # no checkpoint of ours
    assert newest_checkpoint(run).name == "step-1000500"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (
        lambda last: os.truncate(last / "model.safetensors", 1000),
        r"model\.safetensors has 1,000 bytes, not [0-9],[0-9]{3},[0-9]{3}",
    ),
    "no marker": (lambda last: (last / "state.json").unlink(), r"state\.json is missing"),
    "an empty marker": (
        lambda last: (last / "state.json").write_text(""),
        r"state\.json is damaged",
    ),
    "a marker that names no weights": (
        lambda last: (last / "state.json").write_text('{"step": 10, "files": {}}'),
        r"state\.json is not that of this checkpoint",
    ),
    "another's marker": (
        lambda last: shutil.copy(last.with_name("step-000005") / "state.json", last),
        r"state\.json is not that of this checkpoint",
    ),
    "a file is gone": (
        lambda last: (last / "optimizer.safetensors").unlink(),
        r"optimizer\.safetensors cannot be read \(No such file",
    ),
}


@pytest.mark.parametrize(("damage", "flaw"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_line_that_names_its_flaw(
    run: Path,
    damage: Callable[[Path], object],
    flaw: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(run, 5)
    _, last = save(run, 10)
    assert newest_checkpoint(run).name == "step-000010"
    assert capsys.readouterr().err == f"{run}: using step-000010\n"
    damage(last)
    assert newest_checkpoint(run).name == "step-000005"
    printed = capsys.readouterr().err
    assert re.fullmatch(rf"{run}: step-000010 is skipped: {flaw}.*; using step-000005\n", printed)
    with pytest.raises(UserError, match=f"not a complete checkpoint; {flaw}"):
        checkpoint.read(last)
    shutil.rmtree(last.with_name("step-000005"))
    with pytest.raises(UserError, match=rf"no checkpoint is complete \(step-000010 .*{flaw}"):
        newest_checkpoint(run)
    save(run, 10)  # in its place
    assert newest_checkpoint(run).name == "step-000010"


def test_a_damaged_checkpoint_that_is_named_itself_is_refused(run: Path) -> None:
    _, last = save(run, 10)
    os.truncate(last / "model.safetensors", 1000)
    with pytest.raises(UserError, match=r"step-000010: not a complete checkpoint; model\.safe"):
        load_trained(last, torch.device("cpu"))


def test_a_flipped_bit_of_what_is_read_is_found_before_it_changes_a_number(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, 5)
    _, last = save(run, 10)
    moments = last / checkpoint.MOMENTS_NAME
    moments.write_bytes(moments.read_bytes()[:-1] + b"\xff")
    assert newest_checkpoint(run) == last  # they are not measured
    capsys.readouterr()
    assert checkpoint.latest(run, checkpoint.CONTINUED_FROM) == last.with_name("step-000005")
    assert "optimizer.safetensors has another checksum than when" in capsys.readouterr().err
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert newest_checkpoint(run) == last.with_name("step-000005")
    with pytest.raises(UserError, match=r"not a complete .*; model\.safetensors has another"):
        load_trained(last, torch.device("cpu"))
    state = json.loads((last / "state.json").read_text())
    del state["crc32"]  # as checkpoints of before
    (last / "state.json").write_text(json.dumps(state))
    assert newest_checkpoint(run) == last


@contextmanager
def little_room() -> Iterator[None]:
    """Files of at most a megabyte: an error as on a full disk, not a signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_checkpoint_before_usable_and_no_half_one(run: Path) -> None:
    clip, _ = save(run, 5)
    with little_room(), pytest.raises(UserError) as refused:
        save(run, 10)
    assert "step-000010: cannot be written" in str(refused.value)
    assert "step-000005 is complete" in str(refused.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000005"]
    loaded = load_trained(run, torch.device("cpu"))
    assert torch.equal(loaded.towers.visual.conv1.weight, clip.towers.visual.conv1.weight)


def test_runs_are_numbered_and_an_existing_one_is_not_overwritten(run: Path) -> None:
    with pytest.raises(UserError, match=r"exists; choose another --run, or add --resume"):
        checkpoint.refuse_existing(run, resume=False)
    checkpoint.refuse_existing(run, resume=True)
    root = run.parent / "runs"
    assert checkpoint.next_free_run(root).name == "train-001"
    (root / "train-001").mkdir(parents=True)
    assert checkpoint.next_free_run(root).name == "train-002"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: None, "has no complete checkpoint yet"),
        (lambda run: (run / "config.json").write_text("{"), "not JSON"),
        (lambda run: shutil.rmtree(run), "no such folder"),
        (lambda run: (run / "config.json").unlink(), "no open_clip_config.json"),
    ],
)
def test_what_is_no_trained_run_is_refused(run: Path, make: object, message: str) -> None:
    make(run)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        load_trained(run, torch.device("cpu"))


def test_settings_are_json_that_a_person_can_read(run: Path) -> None:
    assert json.loads((run / "config.json").read_text()) == {"settings": {}}
