"""The comparison of objectives: what is trained, in which order, and the values of its tables."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from experiments import presets
from experiments.preset_protocol import COMPARISONS, KINDS, OBJECTIVES, TWO_TYPES, TYPES, protocol
from experiments.preset_records import Records
from experiments.preset_settings import Settings
from experiments.preset_tables import read, tables
from experiments.presets import compare, in_turns, page
from hnc_ds.captions.negatives.negative_types import NEGATIVE_TYPES
from hnc_ds.config import PRESETS
from hnc_ds.errors import UserError
from hnc_ds.records import Result


def measured(path: Path, **accuracies: float) -> Path:
    """Scores as evaluate writes them."""
    rows = [
        Result("m", "hnc-shards", 1, metric, group, value, 0.0, 1.0, 10)
        for group, value in accuracies.items()
        for metric in ("pair_accuracy", "margin", "ties")
    ]
    rows.append(Result("m", "retrieval", 1, "image_to_text_R@1", "all", 0.25, 0.0, 1.0, 10))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(rows))
    return path


def test_a_column_is_the_mean_of_its_types_and_a_cell_the_mean_of_the_seeds(tmp_path: Path) -> None:
    opposites = {"relation_pred": 0.5, "relation_attr_pred": 0.7}
    seeds = [read(measured(tmp_path / f"{n}", swap=n / 10, **opposites)) for n in (5, 6)]
    lines = tables({"hnc": seeds, "clip": []}).splitlines()
    swap, opposite = lines[2].split(" | ")[1:3]
    assert (swap, opposite) == ("55.0 (50.0 - 60.0)", "60.0 (60.0 - 60.0)")
    assert lines[3].startswith("| clip | - | - |")
    assert "| pair_accuracy swap | 55.0 (50.0 - 60.0) | - |" in lines
    assert "| image_to_text_R@1 all | 25.0 (25.0 - 25.0) | - |" in lines
    assert not any("margin" in line or "ties" in line for line in lines)


def test_the_page_states_how_many_seeds_there_are_and_what_was_trained(tmp_path: Path) -> None:
    settings = Settings(out=tmp_path, steps=7, only=("clip", "dpo"))
    records = Records(tmp_path / "PRESETS.json", {})
    records.keep("clip", 2, read(measured(tmp_path / "r.json", swap=0.5)))
    message = page(settings, records)
    assert "and for 7\nsteps on images of two or three" in message
    assert "    clip             seeds: 1  --preset clip\n" in message
    assert "    dpo              seeds: 0  --preset dpo\n" in message
    of_three = page(replace(settings, images="three"), records)
    assert "--images three`" in of_three
    assert "and for 7\nsteps on images of three with captions" in of_three


def test_every_objective_begins_at_the_start_of_its_seed_with_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def run(arguments: str, *_: object) -> None:
        commands.append(arguments)
        if "--out" in arguments:
            measured(Path(arguments.split()[-1]), swap=0.5)

    monkeypatch.setattr(presets, "hnc_ds", run)
    settings = Settings(out=tmp_path)
    records = Records(tmp_path / "PRESETS.json", {})
    for name in ("clip", "dpo"):
        compare(settings, records, name, 1)
    assert records.scores("dpo", 1)["hnc-shards", "pair_accuracy", "swap"] == 0.5
    first, then, measure, *others = commands
    assert f"local-dir:{tmp_path}/mixed/start-1/checkpoints/step-000200 --preset clip" in first
    assert f"--negative_types {TWO_TYPES} --model" in first
    assert f"local-dir:{tmp_path}/mixed/clip-first-1/checkpoints/step-001500 --preset clip" in then
    assert f"--negative_types {TYPES} --model" in then
    assert "mixed-40000/shards/train" in then
    assert "mixed-40000/shards/val" in measure
    assert [command.replace("clip", "dpo") for command in commands[:3]] == others


def test_what_is_recorded_is_not_trained_again_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "PRESETS.md"
    here = Settings(out=tmp_path / "here", page=page, only=("clip",), seeds=(0, 1))
    kept = Records(page.with_suffix(".json"), protocol("mixed", here.counts()))
    scores = read(measured(tmp_path / "r.json", swap=0.5, **{"x/y": 0.25}))
    for seed in (0, 1):
        kept.keep("clip", seed, scores)
    monkeypatch.setattr(presets, "hnc_ds", None)
    presets.run(here)
    assert "| clip | 50.0 (50.0 - 50.0) |" in page.read_text()
    presets.run(replace(here, seeds=(0, 1, 2), tables_only=True))
    again = Records(page.with_suffix(".json"), protocol("mixed", here.counts()))
    assert again.scores("clip", 1) == scores
    assert again.scores("clip", 2) == {}
    with pytest.raises(UserError, match=r"of another protocol \(steps\); remove it"):
        presets.run(replace(here, steps=7))


def test_as_many_run_at_once_as_wanted_and_a_failure_stops_the_rest() -> None:
    both, begun = threading.Barrier(2, timeout=20), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        if number < 2:
            both.wait()
        if number == 1:
            raise UserError("failed")
        time.sleep(0.1)

    with pytest.raises(UserError, match="failed"):
        in_turns(2, work, [(number,) for number in range(50)])
    assert len(begun) < 10


@pytest.mark.slow
def test_a_command_that_fails_is_reported_with_its_log(tmp_path: Path) -> None:
    message = tmp_path / "logs" / "run.log"
    with pytest.raises(UserError, match=f"'hnc-ds evaluate' failed; see {message}"):
        presets.hnc_ds(f"evaluate {tmp_path} --shards none --out x.json", message, 1)
    assert "hnc-ds: " in message.read_text()


def test_every_preset_is_compared_on_known_types_and_a_misspelt_one_is_refused() -> None:
    used = " ".join(OBJECTIVES.values())
    embeds = [name for name, one in PRESETS.items() if "itm" not in one["terms"]]
    assert all(f"--preset {name}" in used for name in embeds)
    assert all(set(kind.types.split()[::2]) <= set(NEGATIVE_TYPES) for kind in KINDS.values())
    with pytest.raises(UserError, match="no objective 'negclp'; did you mean 'negclip'"):
        Settings(only=("negclp",))


def test_images_of_three_have_counts_objectives_and_folders_of_their_own(tmp_path: Path) -> None:
    both = [Settings(out=tmp_path, images=images) for images in ("mixed", "three")]
    assert [(s.counts().train, s.counts().steps) for s in both] == [(40000, 2500), (120000, 12500)]
    assert Settings(images="three", steps=5).counts().steps == 5
    assert len({s.shards("two", "train") for s in both} | {s.run("clip", 0) for s in both}) == 4
    assert {*both[1].chosen()} <= {*OBJECTIVES}
    assert len({comparison.page for comparison in COMPARISONS.values()}) == 2


def test_weights_of_images_of_three_replace_those_of_all_types() -> None:
    words = KINDS["three"].types.split()
    weights = dict(zip(words[::2], words[1::2], strict=True))
    assert {*weights} == {*TYPES.split()[::2]}
    assert (weights["relation_subj"], weights["swap"]) == ("6", "2")
