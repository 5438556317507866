"""Training in this process: what is written, what is refused, and in which words."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from hnc_ds.checkpoint import complete_checkpoints, load_trained, to_json
from hnc_ds.config import LOSS_TERMS, PRESETS, InterpolateConfig, LossConfig, ReportConfig
from hnc_ds.errors import UserError
from hnc_ds.interpolation import interpolate
from hnc_ds.model.load import load_folder
from hnc_ds.output_lock import only_writer
from hnc_ds.report.page import report
from hnc_ds.shards.format import read_shard_index
from hnc_ds.train import main, parse
from tests.model.test_text import make_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def deepspeed_config(tmp_path: Path) -> Path:
    config = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    path = tmp_path / "small.json"
    path.write_text(json.dumps(config | {"train_batch_size": 16}))
    return path


@pytest.fixture
def arguments(deepspeed_config: Path, scene_shards: Path, tmp_path: Path) -> list[str]:
    return [
        *("--deepspeed_config", str(deepspeed_config)),
        *("--shards", str(scene_shards / "train")),
        *("--run", str(tmp_path / "run")),
        *("--steps", "4", "--log_every", "2"),
    ]


def changed(arguments: list[str], **flags: object) -> list[str]:
    """The arguments with other values for some flags."""
    found = list(arguments)
    for name, value in flags.items():
        if f"--{name}" in found:
            found[found.index(f"--{name}") + 1] = str(value)
        else:
            found += [f"--{name}", *str(value).split()]
    return found


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that training ends with; nothing else may come of it."""
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_run_that_another_process_trains_is_refused_and_not_touched(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path / "run"):
        line = refusal([*arguments, "--resume"], capsys)
    assert f"run: process {os.getpid()} on " in line
    assert not (tmp_path / "run").exists()


def test_the_number_of_workers_is_chosen_printed_recorded_and_may_change(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "run" / "config.json"
    assert main(changed(arguments, steps=1)) == 0
    assert "1 rank with 1 worker, steps 0 to 1" in capsys.readouterr().out
    written = json.loads(record.read_text())
    assert (written["settings"]["data"]["workers"], written["workers"]) == (None, 1)
    assert main([*changed(arguments, steps=2, workers=0), "--resume"]) == 0
    assert "1 rank with 0 workers, steps 1 to 2" in capsys.readouterr().out
    written = json.loads(record.read_text())
    assert (written["settings"]["data"]["workers"], written["workers"]) == (0, 0)


def test_decoding_on_a_gpu_is_refused_without_one_and_where_the_run_began_without(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(changed(arguments, decode="gpu"), capsys)
    assert line == "train: --decode gpu needs a CUDA device; this is cpu, leave it out"
    assert not (tmp_path / "run").exists()
    assert main(changed(arguments, steps=1)) == 0
    line = refusal([*changed(arguments, decode="gpu"), "--resume"], capsys)
    assert "was trained with decode cpu, not gpu" in line


def test_a_run_recorded_without_most_of_one_resumes_and_another_share_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That draws without it do not change is shown by tests/shards/test_negatives.py."""
    record = tmp_path / "run" / "config.json"
    assert main(changed(arguments, steps=1)) == 0
    written = json.loads(record.read_text())
    assert written["settings"]["data"].pop("most_of_one") == 0.25
    record.write_text(json.dumps(written))
    assert main([*changed(arguments, steps=2), "--resume"]) == 0
    line = refusal([*changed(arguments, steps=3, most_of_one=0.5), "--resume"], capsys)
    assert "was trained with most_of_one 0.25, not 0.5" in line


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("--tau 0.07", "", "was trained with tau 0.07, not None"),
        ("", "--tau 0.07", "was trained with tau None, not 0.07"),
        ("", "--preset siglip", "with terms that train logit_bias none, not sigmoid"),
    ],
)
def test_what_trains_is_the_same_after_a_resume(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    before: str,
    after: str,
    message: str,
) -> None:
    """Its checkpoint is sound, and is not called another run's."""
    assert main([*changed(arguments, steps=1), *before.split()]) == 0
    assert message in refusal([*changed(arguments, steps=2), "--resume", *after.split()], capsys)


@pytest.mark.parametrize("flags", ["", "--tau 0.07"])
def test_terms_of_captions_alone_do_not_train_the_image_tower(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    alone = f"--towers image --terms intra_modal 1 {flags}".split()
    line = refusal([*changed(arguments, steps=1), *alone], capsys)
    assert "terms intra_modal do not see the image tower, and the text tower does not train" in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_writes_its_settings_log_tensorboard_and_checkpoint(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--alpha", "2", "--unrelated_negatives", "1"]) == 0
    run = tmp_path / "run"
    settings = json.loads((run / "config.json").read_text())
    assert settings["settings"]["loss"]["alpha"] == 2
    assert settings["deepspeed"]["train_batch_size"] == 16
    assert {"torch", "deepspeed", "open_clip_torch"} <= settings["versions"].keys()
    assert "commit" in settings
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["loss"] == pytest.approx(
            line["loss/image_to_text"] + line["loss/text_to_image"], rel=1e-6
        )
        assert 0 <= line["hard_negative_accuracy"] <= 1
        assert line["padding_fraction"] == 0  # captions are packed
        assert line["alpha"] == 2
        assert line["temperature"] == pytest.approx(0.07, rel=0.01)
        named = {name for name in line if name.startswith("hard_negative_accuracy/")}
        assert "hard_negative_accuracy/swap" in named
    assert list(run.glob("events.*"))
    assert [path.name for path in complete_checkpoints(run)] == ["step-000004"]
    load_trained(run, torch.device("cpu"))


def trained(arguments: list[str], run: Path, **flags: object) -> tuple[torch.Tensor, list[Any]]:
    """All weights after a training in one row, and the lines of its log."""
    assert main(changed(arguments, run=run, crop=1, **flags)) == 0
    weights = load_trained(run, torch.device("cpu")).state_dict().values()
    lines = (run / "log.jsonl").read_text().splitlines()
    return torch.cat([w.float().flatten() for w in weights]), [json.loads(line) for line in lines]


def test_the_plain_twin_sees_the_same_samples_and_learns_nothing_from_negatives(
    arguments: list[str], tmp_path: Path
) -> None:
    """Alpha 0 draws what alpha 2 draws and measures it, but trains as if there were no negatives.

    Crops are drawn after the negatives of a visit, so without crops none at all leave images and
    positives as they are with four.
    """
    hard, hard_lines = trained(arguments, tmp_path / "hard", alpha=2, log_every=1)
    plain, plain_lines = trained(arguments, tmp_path / "plain", alpha=0, log_every=1)
    skipping, skipping_lines = trained(arguments, tmp_path / "skipping", alpha=0, log_every=4)
    none, none_lines = trained(arguments, tmp_path / "none", alpha=0, log_every=1, hard_negatives=0)

    # Padding identifies the drawn captions; the rest is comparable until weights differ.
    padding = [[line["padding_fraction"] for line in lines] for lines in (plain_lines, hard_lines)]
    assert padding[0] == padding[1]
    untrained = ("similarity/", "loss/text_to_image", "hard_negative_accuracy", "margin")
    seen = [
        {name: value for name, value in lines[0].items() if name.startswith(untrained)}
        for lines in (plain_lines, hard_lines)
    ]
    assert seen[0] == pytest.approx(seen[1], abs=1e-6)
    assert "hard_negative_accuracy" in seen[0]
    assert hard_lines[0]["loss/image_to_text"] > plain_lines[0]["loss/image_to_text"] + 0.01

    losses = [[line["loss"] for line in lines] for lines in (plain_lines, none_lines)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert not any("hard_negative_accuracy" in line for line in none_lines)
    # Where no line is due, alpha 0 does not even encode its negatives.
    assert skipping_lines[0]["hard_negative_accuracy"] == plain_lines[3]["hard_negative_accuracy"]
    torch.testing.assert_close(plain, skipping, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain, none, atol=1e-6, rtol=0)
    assert (plain - hard).abs().max() > 1e-5


@pytest.mark.slow
def test_settings_of_a_run_repeat_it_and_flags_override_them(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--alpha", "3", "--negative_types", "swap", "1"]) == 0
    config = str(tmp_path / "run" / "config.json")
    again = parse(["--config", config, "--steps", "9"])
    assert again.loss.alpha == 3
    assert again.data.negative_types == {"swap": 1.0}
    assert (again.steps, again.run, again.resume) == (9, None, False)
    copied = tmp_path / "settings.json"
    copied.write_bytes((tmp_path / "run" / "config.json").read_bytes())
    for path in (tmp_path / "run", copied):
        same = parse(["--config", str(path), "--steps", "9"])
        assert replace(same, config=None) == replace(again, config=None)
    assert main(["--config", config, "--run", str(tmp_path / "again")]) == 0
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").open()]
        for name in ("run", "again")
    ]
    assert logs[0] == logs[1]


def test_a_preset_sets_the_loss_and_flags_override_it(tmp_path: Path) -> None:
    preset = parse(["--preset", "negclip", "--alpha", "3"])
    assert preset.loss == LossConfig(
        terms={"contrastive": 0.5}, alpha=3.0, negatives_from="all_images"
    )
    record = {"settings": to_json(replace(preset, steps=7))}
    (tmp_path / "config.json").write_text(json.dumps(record))
    again = ["--config", str(tmp_path / "config.json")]
    assert parse(again).loss == preset.loss
    assert parse([*again, "--terms", "contrastive", "1"]).loss.terms == {"contrastive": 1.0}
    other = parse([*again, "--preset", "dpo"])
    assert (other.steps, other.loss) == (7, LossConfig(**PRESETS["dpo"]))


def test_the_preset_whose_reference_is_the_average_has_its_decay(tmp_path: Path) -> None:
    assert parse(["--preset", "degla"]).ema == 0.9996
    assert parse(["--preset", "degla", "--ema", "0.9"]).ema == 0.9
    assert parse(["--preset", "clip"]).ema is None
    with pytest.raises(UserError, match=r"ema is 0\.0; it must be more than 0"):
        parse(["--ema", "0"])
    with pytest.raises(UserError, match="reference average is that of --ema"):
        parse("--terms contrastive 1 distill 1 --reference average".split())


@pytest.mark.slow
def test_a_model_of_clip_gains_a_bias_with_the_sigmoid_loss_and_keeps_it(
    arguments: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    siglip = [*arguments, "--preset", "hnc-siglip", "--bias", "-5", "--save_every", "4"]
    assert main(siglip) == 0
    assert main([*changed(siglip, steps=6), "--resume"]) == 0
    biases = []
    for step in complete_checkpoints(run):
        towers = open_clip.create_model(f"local-dir:{step}", require_pretrained=True)
        biases.append(float(towers.logit_bias.detach()))
    assert len(biases) == 2
    assert -5.1 < min(biases) < max(biases) < -4.9
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["bias"] for line in lines if "bias" in line][-1] == pytest.approx(
        biases[-1], abs=0.01
    )
    # The model that it began from has no bias.
    mixed = tmp_path / "mixed"
    interpolate(InterpolateConfig(start="start", final=str(run), save="0.5", save_to=mixed))
    assert float(load_folder(mixed).logit_bias()) == biases[-1]


def test_captions_that_the_context_makes_alike_and_images_twice_in_a_batch_are_reported_once(
    arguments: list[str],
    deepspeed_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_folder(tmp_path / "short", {"context_length": 6})
    config = json.loads(deepspeed_config.read_text()) | {"train_batch_size": 100}
    deepspeed_config.write_text(json.dumps(config))
    short = changed(arguments, model=f"local-dir:{folder}", steps=2, log_every=1, workers=1)
    assert main(short) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    printed = capsys.readouterr().err
    assert printed.count("so far have the same tokens") == 1
    number = re.search(r"train: (\d+) of (\d+) hard negatives so far have the same tokens", printed)
    assert number is not None
    share = int(number[1]) / int(number[2])
    assert lines[0]["alike_negatives"] == pytest.approx(share)
    assert 0 < share < 1
    assert "is cut off at 6 tokens" in printed
    assert "the batch of step 1 holds 4 of its 100 images not for the first time" in printed


def test_a_fixed_temperature_stays_fixed(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--tau", "0.05"]) == 0
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line)["temperature"] == pytest.approx(0.05) for line in lines)


@pytest.mark.slow
def test_captions_without_negatives_train_beside_others_under_every_term(
    arguments: list[str], plain_shards: Path, tmp_path: Path
) -> None:
    every = " ".join(f"{name} 1" for name, term in LOSS_TERMS.items() if not term.of_matches)
    mixed = changed(arguments, shards=plain_shards / "some", terms=every, share_with_negatives=0.5)
    assert main(changed(mixed, log_every=4)) == 0
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert all(math.isfinite(line[f"loss/{tag}"]) for tag in ("margin", "blind", "preference"))
    run = ["--shards", str(plain_shards / "some")]
    for alpha in ("0", "3"):  # both see the same rows
        flags = [*run, "--run", str(tmp_path / f"alpha-{alpha}"), "--alpha", alpha]
        assert main([*arguments, *flags]) == 0
    plain, hard = (
        json.loads((tmp_path / f"alpha-{alpha}" / "log.jsonl").read_text().splitlines()[0])
        for alpha in ("0", "3")
    )
    assert plain["hard_negative_accuracy"] == pytest.approx(hard["hard_negative_accuracy"], abs=0.1)
    assert plain["padding_fraction"] == hard["padding_fraction"]


@pytest.mark.slow
def test_data_without_negatives_trains_as_plain_clip_and_terms_that_need_them_are_refused(
    arguments: list[str], plain_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = changed(arguments, shards=plain_shards / "none", eval_shards=plain_shards / "none")
    line = refusal([*none, "--terms", "contrastive", "1", "margin", "1"], capsys)
    assert f"terms margin need hard negatives; {plain_shards / 'none'} holds none" in line
    assert not (tmp_path / "run").exists()
    assert main(none) == 0
    assert "none holds no hard negatives, so alpha has no effect" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert not any(name.startswith("hard_negative") for line in lines for name in line)
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["metric"].startswith("retrieval/")
    page = tmp_path / "page.html"
    report(ReportConfig(runs=(tmp_path / "run",), out=page))
    assert "retrieval" in page.read_text().lower()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"shards": "nowhere"}, "nowhere: no such folder; make shards with 'hnc-ds pack"),
        ({"model": "ViT-B-33"}, "model 'ViT-B-33' is not one of open_clip's; did you mean"),
        ({"pretrained": "nix"}, "pretrained 'nix' is neither a file nor a tag of tiny"),
        ({"deepspeed_config": "nix.json"}, "no DeepSpeed config at nix.json; give a file or one"),
        ({"negative_types": "swop 1"}, "no negatives of type 'swop'; did you mean 'swap'?"),
        ({"alpha": -1}, "alpha is -1.0; it must be 0 or more"),
        ({"preset": "negclp"}, "no preset 'negclp'; did you mean 'negclip'?"),
        ({"tau": 0}, "tau is 0.0; it must lie between 0.01 and 10"),
        ({"config": "nowhere/config.json"}, "nowhere/config.json: cannot be read (No such"),
        ({"config": "."}, ".: not a run folder, it has no config.json"),
    ],
)
def test_bad_settings_are_one_line_and_no_run(
    flags: dict[str, Any],
    message: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refusal(changed(arguments, **flags), capsys)
    assert not (tmp_path / "run").exists()


def test_a_fault_of_deepspeeds_json_is_one_line_and_no_run(
    arguments: list[str],
    deepspeed_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = json.loads(deepspeed_config.read_text())
    config["zero_optimization"]["offload_optimizer"] = {"device": "gpu"}
    deepspeed_config.write_text(json.dumps(config))
    line = refusal(arguments, capsys)
    assert f"{deepspeed_config}: zero_optimization.offload_optimizer.device is 'gpu'; it" in line
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("kept")
    assert "exists; choose another --run, or add --resume" in refusal(arguments, capsys)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_an_unknown_setting_in_a_config_file_is_refused_with_the_nearest(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"loss": {"alfa": 1}}}))
    line = refusal([*arguments, "--config", str(tmp_path / "config.json")], capsys)
    assert "config.json.loss: unknown setting 'alfa'; did you mean 'alpha'?" in line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "holds no index.json, so packing did not finish"),
        (lambda f: (f / "shard-000000.tar").unlink(), "missing, but index.json lists it"),
        (lambda f: (f / "shard-000000.json").write_text("{}"), "not a shard index"),
        (lambda f: truncate(f / "shard-000000.tar"), "it is truncated or was changed"),
    ],
)
def test_damaged_shards_are_refused_before_anything_is_trained(
    damage: Any,
    message: str,
    arguments: list[str],
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(scene_shards / "train", tmp_path / "shards")
    damage(tmp_path / "shards")
    assert message in refusal(changed(arguments, shards=tmp_path / "shards"), capsys)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("corrupt", [1, 0])
def test_more_than_one_percent_of_corrupt_images_is_refused(
    corrupt: int,
    arguments: list[str],
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of 96 is more than 1 %."""
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    with (folder / "shard-000000.tar").open("r+b") as tar:
        for offsets in read_shard_index(folder, "shard-000000.tar").samples[:corrupt]:
            tar.seek(offsets.image_offset)
            tar.write(b"\0" * offsets.image_bytes)
    settings = changed(arguments, shards=folder, steps=6)  # one epoch
    if corrupt:
        line = refusal(settings, capsys)
        assert "1 of 96 images cannot be decoded" in line
        assert "shard-000000.tar:" in line
    else:
        assert main(settings) == 0


TRAIN_WITH_LITTLE_ROOM = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: an error, not a signal
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from hnc_ds.train import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_stops_a_run_with_one_line_and_it_can_be_resumed(
    arguments: list[str], tmp_path: Path
) -> None:

    assert main(changed(arguments, steps=2)) == 0
    before = complete_checkpoints(tmp_path / "run")
    longer = changed(arguments, steps=4)
    stopped = subprocess.run(
        [sys.executable, "-c", TRAIN_WITH_LITTLE_ROOM, *longer, "--resume"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == 2, stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert "step-000004: cannot be written" in last
    assert "step-000002 is complete" in last
    assert complete_checkpoints(tmp_path / "run") == before
    assert main([*longer, "--resume"]) == 0
    assert complete_checkpoints(tmp_path / "run")[-1].name == "step-000004"
