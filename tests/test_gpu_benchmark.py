"""The benchmark for a CUDA device: its logic on a CPU, and what becomes of what goes wrong."""

import json
import math
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.model.load import load_model
from speed import gpu
from speed.made import drawn_captions, made_batch
from speed.on_gpu import goals, steps
from speed.on_gpu.ground import Ground
from speed.on_gpu.memory import largest_that_fits
from speed.on_gpu.page import Book, Found
from speed.on_gpu.sections import SECTIONS
from speed.phases import WHOLE, Calls, calls_by_phase, profiled, seconds_by_phase
from speed.variants import NoEngine, Ours, shipped

CHECKOUT = Path(__file__).parent.parent


def run_gpu(out: Path, *flags: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, GPU.json and GPU.md of a run on the CPU."""
    command = [sys.executable, "speed/gpu.py", "--device", "cpu", "--quick", *flags]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=CHECKOUT, capture_output=True, text=True
    )
    content = json.loads((out / "GPU.json").read_text())
    return done.returncode, content, (out / "GPU.md").read_text()


@pytest.mark.slow
def test_the_gpu_script_runs_all_its_logic_on_a_cpu_and_states_what_that_is_worth(
    tmp_path: Path,
) -> None:
    status, content, page = run_gpu(tmp_path, "--profile")
    assert status == 0, page
    assert "mean nothing" in page
    assert list(content["sections"]) == list(SECTIONS)
    assert not content["numbers_mean_something"]
    assert {found["state"] for found in content["sections"].values()} == {"done"}, page
    rows = [row for found in content["sections"].values() for row in found["rows"]]
    assert all(min(row["samples_per_second"]) > 0 for row in rows)
    variants = ("hnc_ds", "open_clip's step", "no engine")
    assert {
        f"{kind}: {variant}" for kind in ("tiny", "tiny, compiled") for variant in variants
    } <= {row["what"] for row in rows}
    reached = {goal for found in content["sections"].values() for goal in found["reached"]}
    assert reached >= set(goals.GOALS)
    assert "not measured" not in page
    checks = [check for found in content["sections"].values() for check in found["checks"]]
    assert len(checks) >= 7
    assert all(check["holds"] for check in checks)


@pytest.mark.slow
def test_without_time_the_gpu_script_leaves_everything_out_and_reports_it(tmp_path: Path) -> None:
    status, content, page = run_gpu(tmp_path, "--minutes", "0")
    assert status == 0
    states = [found["state"] for found in content["sections"].values()]
    assert all(state.startswith("left out: 0 s were left") for state in states)
    assert page.count("left out") == len(states)
    assert page.count("not measured") == len(goals.GOALS)


def test_a_section_that_is_run_alone_takes_its_place_among_those_of_before(tmp_path: Path) -> None:
    """Unless another device has measured those."""
    before = Book({"date": "then", "accelerator": "A"}, False, {})
    before.sections = {n: Found(n, "done", notes=[f"old {n}"]) for n in ("peak", "real", "loss")}
    before.peak_tflops = 7.0
    before.write(tmp_path)
    for accelerator, expected in (("A", ["peak", "real", "loss"]), ("B", ["real"])):
        book = Book({"date": "now"}, False, {"real": Found("real")})
        book.keep(tmp_path, {"peak": "", "real": "", "loss": ""})
        book.take({"section": "real", "kind": "fact", "value": ["accelerator", accelerator]})
        assert list(book.sections) == expected
        assert book.facts["date"] == "now"
        assert ("old peak" in book.page()) is (accelerator == "A")
        assert "old real" not in book.page()
        assert book.peak_tflops == (7.0 if accelerator == "A" else None)


def test_an_unknown_section_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'memory'"):
        gpu.Settings(only=("memroy",))


def test_goals_are_met_missed_or_not_measured_and_shares_of_the_peak_need_the_peak() -> None:
    reached = {
        "l14 eager ahead": 1.3,
        "l14 compiled ahead": 1.29,
        "l14 compiled tflops": 46.0,
        "l14 eager behind": 0.06,
        "l14 compiled behind": math.nan,
    }
    table = dict(zip(goals.GOALS, goals.lines(reached, 100.0)[2:], strict=True))
    assert table["l14 eager ahead"].endswith("| at least 1.3 | 1.3 | met |")
    assert table["l14 compiled ahead"].endswith("| at least 1.3 | 1.29 | **missed** |")
    assert table["l14 compiled tflops"].endswith("| at least 45.0% | 46.0% | met |")
    assert table["l14 eager behind"].endswith("| at most 5.0% | 6.0% | **missed** |")
    assert table["llava ahead"].endswith("| at least 3 | | not measured |")
    assert goals.missed(reached, 100.0) == [
        "l14 compiled ahead", "l14 eager behind", "l14 compiled behind"
    ]  # fmt: skip
    assert (
        "not measured"
        in dict(zip(goals.GOALS, goals.lines(reached, None)[2:], strict=True))[
            "l14 compiled tflops"
        ]
    )


def section_after_one_that(behaves: str) -> str:
    """A program that runs a section that behaves like this, and one that records a number."""
    return f"""
import os, sys, time
from pathlib import Path
import torch
from speed.on_gpu.ground import Ground
from speed.on_gpu.sections import Section, run_sections
def first(ground, recorder):
    recorder.note("began")
    {behaves}
def second(ground, recorder):
    recorder.fact("answer", 42)
sections = {{"first": Section("First", first, 0), "second": Section("Second", second, 0)}}
folder = Path(sys.argv[1])
ground = Ground(torch.device("cpu"), True, folder, time.time() + 60)
run_sections(sections, sections, ground, folder / "findings.jsonl")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaves", "message", "goes_on"),
    [
        ("raise torch.OutOfMemoryError('no room')", "stopped: OutOfMemoryError: no room", True),
        ("os._exit(7)", "its process ended with status 7", False),
        ("time.sleep(600)", "no time was left", False),
    ],
)
def test_what_goes_wrong_in_a_section_is_on_the_page_with_what_was_found_before(
    tmp_path: Path, behaves: str, message: str, goes_on: bool
) -> None:
    names = ("first", "second")
    book = Book({}, False, {name: Found(name) for name in names})
    program = section_after_one_that(behaves)
    until = time.time() + (10 if "sleep" in behaves else 60)
    command = [sys.executable, "-c", program, str(tmp_path)]
    gpu.watch(command, tmp_path, until, book, names, tmp_path)
    assert book.sections["first"].notes == ["began"]
    assert message in book.sections["first"].errors[0]
    assert (book.facts.get("answer") == 42) is goes_on
    assert message in book.page()
    assert not book.holds()
    assert time.time() < until + 5


def test_without_a_cuda_device_the_gpu_script_reports_it_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main() == 2
    assert capsys.readouterr().err == (
        "gpu: no CUDA device; --device cpu --quick tries the logic alone\n"
    )


@pytest.mark.parametrize(
    ("room", "expected"), [((8, 4), (8, False)), ((4, 2), (4, False)), ((1, 2), (2, True))]
)
def test_the_largest_batch_that_fits_is_taken_and_checkpointing_only_if_none_does(
    monkeypatch: pytest.MonkeyPatch, room: tuple[int, int], expected: tuple[int, bool]
) -> None:
    """``room``: the largest batch without gradient checkpointing, and with it."""
    closed: list[int] = []

    class FakeSteps:
        def __init__(self, _: Any, captions: list[str], *__: Any) -> None:
            self.batch, self.checkpointing = len(captions), bool(__[-1])

        def fits(self) -> bool:
            return self.batch <= (room[1] if self.checkpointing else room[0])

        def close(self) -> None:
            closed.append(self.batch)

    monkeypatch.setattr(steps, "Steps", FakeSteps)
    nothing: Any = None
    found = steps.largest(nothing, [("a",)] * 8, (2, 4, 8), nothing, steps.VARIANTS)
    assert found is not None
    assert (found.batch, found.checkpointing) == expected
    assert found.batch not in closed[-1:]


@pytest.mark.parametrize(
    ("room", "expected", "tried"),
    [
        (100, 96, [16, 32, 64, 128, 96]),
        (90, 64, [16, 32, 64, 128, 96]),
        (10**6, 256, [16, 32, 64, 128, 256]),
        (5, 4, [16, 8, 4]),
        (0, None, [16, 8, 4, 2, 1]),
    ],
)
def test_the_largest_batch_is_doubled_and_halved_once(
    room: int, expected: int | None, tried: list[int]
) -> None:
    tries: list[int] = []

    def fits(batch: int) -> bool:
        tries.append(batch)
        return batch <= room

    assert largest_that_fits(fits, 16, 256) == expected
    assert tries == tried


@pytest.mark.slow
def test_closed_implementations_leave_nothing_in_memory(tmp_path: Path) -> None:
    ground = Ground(torch.device("cpu"), True, tmp_path, time.time() + 60)
    captions = drawn_captions(tmp_path, 4, steps.NEGATIVES)
    clip = load_model(ModelConfig(), 0)
    sides = steps.Steps(clip, captions, ground, steps.VARIANTS, False)
    assert sides.fits()
    models = (
        sides.variants[steps.OURS].engine.module,
        sides.variants[steps.THEIRS].towers,
        sides.variants[steps.NO_ENGINE].clip,
    )
    weights = [weakref.ref(p) for model in models for p in model.parameters()]
    del models
    assert len(weights) > 150
    sides.close()
    assert not any(weight() is not None for weight in weights)


def test_without_an_engine_the_steps_are_those_of_the_engine(tmp_path: Path) -> None:
    """In fp32, where nothing is rounded apart."""
    captions = drawn_captions(tmp_path, 4, steps.NEGATIVES)
    clip, other = load_model(ModelConfig(), 0), load_model(ModelConfig(), 0)
    batch = made_batch(clip, captions, range(4))
    ours = Ours(clip, shipped("zero1_fp32", train_batch_size=4), all_negatives=True)
    without = NoEngine(other, torch.device("cpu"), torch.float32, all_negatives=True)
    expected = [float(ours.step(batch)) for _ in range(4)]
    ours.close()
    assert [float(without.step(batch)) for _ in range(4)] == pytest.approx(expected, rel=1e-4)
    assert expected[3] < expected[0]


class TwoPhases:
    """A step of 3 operations, of which one waits, then 2, and one that is in no phase."""

    def __init__(self) -> None:
        self.x, self.done = torch.ones(3), ""

    def first(self) -> float:
        self.done += "f"
        return float(self.x.mul(2).sum())

    def second(self) -> torch.Tensor:
        self.done += "s"
        return self.x.neg().abs()

    def step(self) -> None:
        self.first()
        self.second()
        self.x.exp()


def test_queries_of_a_fused_optimizer_on_a_cpu_are_no_wait() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.ones(3)
    optimizer.step()
    found = profiled(lambda: (optimizer.step(), weight.sum().item()), {}, lambda: None, False)
    assert calls_by_phase(found, False)[WHOLE].waits == 1


def test_calls_and_waits_are_counted_by_phase_and_seconds_leave_nothing_behind() -> None:
    two = TwoPhases()
    phases: dict[str, tuple[Any, str]] = {"one": (two, "first"), "two": (two, "second")}
    found = calls_by_phase(profiled(two.step, phases, lambda: None, False, times=2), False)
    # item() is a call as well as a wait
    assert found == {"one": Calls(2 * 3, 2), "two": Calls(2 * 2, 0), WHOLE: Calls(2 * 6, 2)}
    assert list(found) == ["one", "two", WHOLE]
    waited: list[str] = []
    seconds = seconds_by_phase(two.step, phases, lambda: waited.append(two.done[-1:]), 3)
    assert list(seconds) == ["one", "two", WHOLE]
    assert seconds["one"] + seconds["two"] <= seconds[WHOLE]
    assert len(waited) == 4 * 6  # around each of three, in four steps
    assert vars(two).keys() == {"x", "done"}
