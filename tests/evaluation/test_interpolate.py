"""A sweep between the start of a small run and its end, on rendered scenes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hnc_ds import checkpoint
from hnc_ds import interpolation as module
from hnc_ds.checkpoint import to_json
from hnc_ds.config import (
    EvaluateConfig,
    InterpolateConfig,
    ModelConfig,
    ReportConfig,
    ScenesConfig,
    TrainConfig,
)
from hnc_ds.demo import prepare
from hnc_ds.errors import UserError
from hnc_ds.evaluation import embed, results
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.released.one_image import SUGARCREPE_FILES
from hnc_ds.evaluation.results import items_path, read_header, read_results
from hnc_ds.interpolation import interpolate
from hnc_ds.model.load import load_model
from hnc_ds.report.page import report

pytestmark = pytest.mark.slow

SCENES = 12
"""Images in the held-out shards."""


def make_run(folder: Path, seed: int) -> Path:
    """A run whose checkpoint differs from its start weights as much as from those of any seed."""
    checkpoint.start_run(folder, {"settings": to_json(TrainConfig(seed=seed))})
    model = load_model(ModelConfig(), seed + 100)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    checkpoint.write(folder, 10, checkpoint.contents(model, weights, {}, {}, {}), keep_last=1)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "first", seed=1)


@pytest.fixture(scope="module")
def few_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of few scenes, in train/ and val/, as most tests evaluate several models on them."""
    scenes = {"train": 8, "val": SCENES, "size": 48, "objects": (2, 2), "duplicate_shapes": 0}
    return prepare(ScenesConfig(out=tmp_path_factory.mktemp("few"), workers=1, **scenes))


@pytest.fixture
def settings(run: Path, few_shards: Path, tmp_path: Path) -> Callable[..., InterpolateConfig]:
    """Of the command: a sweep of three points."""
    defaults = {
        "start": "start",
        "final": str(run),
        "sweep": "0,0.5,1",
        "shards": few_shards / "val",
        "out": tmp_path / "sweep",
        "workers": 0,
    }
    return lambda **other: InterpolateConfig(**(defaults | other))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are measured while a test runs."""
    names: list[str] = []
    measure = module.measure_all

    def counted(encoder: Encoder, *other: object) -> object:
        names.append(encoder.name)
        return measure(encoder, *other)

    monkeypatch.setattr(module, "measure_all", counted)
    return names


def only_save(folder: Path, coefficient: str, **other: object) -> dict[str, object]:
    return {"shards": None, "out": None, "save": coefficient, "save_to": folder, **other}


def values(results: Path) -> list[bytes]:
    """The rows without what the model is called."""
    rows = read_results(results)
    return [msgspec.json.encode(msgspec.structs.replace(row, model="")) for row in rows]


def scores(results: Path) -> list[bytes]:
    return items_path(results).read_bytes().splitlines()[1:]


def test_at_the_endpoints_the_values_are_those_of_evaluating_them_alone_to_the_byte(
    run, settings, few_shards, tmp_path
):
    interpolate(settings(save="0", save_to=tmp_path / "start"))
    for alone, point in ((tmp_path / "start", "0.0"), (run, "1.0")):
        out = tmp_path / f"alone-{point}.json"
        evaluate(EvaluateConfig(models=(str(alone),), shards=few_shards / "val", out=out))
        swept = tmp_path / "sweep" / f"coefficient-{point}.json"
        assert values(swept) == values(out)
        assert scores(swept) == scores(out)


def test_an_interpolated_model_scores_as_it_did_in_the_sweep(settings, few_shards, tmp_path):
    folder = tmp_path / "models" / "half"
    interpolate(settings(save="0.5", save_to=folder))
    out = tmp_path / "half.json"
    evaluate(EvaluateConfig(models=(str(folder),), shards=few_shards / "val", out=out))
    assert values(out) == values(tmp_path / "sweep" / "coefficient-0.5.json")
    assert scores(out) == scores(tmp_path / "sweep" / "coefficient-0.5.json")
    assert values(out) != values(tmp_path / "sweep" / "coefficient-1.0.json")


def test_open_clip_opens_an_interpolated_model(settings, tmp_path):
    folder = tmp_path / "half"
    interpolate(settings(**only_save(folder, "0.5")))
    towers = open_clip.create_model(f"local-dir:{folder}")
    start, final = (dict(load_model(ModelConfig(), seed).named_parameters()) for seed in (1, 101))
    for name, parameter in towers.named_parameters():
        mean = (start[f"towers.{name}"] + final[f"towers.{name}"]) / 2
        assert torch.allclose(parameter, mean.reshape(parameter.shape), atol=1e-6, rtol=0), name
    origin = json.loads((folder / "origin.json").read_text())["interpolation"]
    assert (origin["start"], origin["coefficient"]) == ("start", "0.5")


def test_the_written_endpoints_have_the_weights_of_the_endpoints_bit_for_bit(
    run, settings, tmp_path
):
    for coefficient in ("0", "1"):
        interpolate(settings(**only_save(tmp_path / coefficient, coefficient)))
    final = load_file(checkpoint.newest_checkpoint(run) / "model.safetensors")
    start = load_model(ModelConfig(), seed=1).state_by_open_clip_name()
    for folder, state in (("0", start), ("1", final)):
        written = load_file(tmp_path / folder / "model.safetensors")
        assert written.keys() == state.keys()
        assert all(torch.equal(written[name], state[name]) for name in state)


def test_every_point_has_results_and_items_that_say_what_it_is(settings, tmp_path, capsys):
    interpolate(settings())
    out = tmp_path / "sweep"
    points = ("0.0", "0.5", "1.0")
    suffixes = (".items.jsonl", ".json")
    names = [f"coefficient-{point}{suffix}" for point in points for suffix in suffixes]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for point in points:
        header = read_header(out / f"coefficient-{point}.items.jsonl")
        rows = read_results(out / f"coefficient-{point}.json")
        assert {row.model for row in rows} == {header.model} == {f"first@{point}"}
        assert (header.images, header.interpolation.coefficient) == (SCENES, point)
        assert (out / header.shards / "index.json").is_file()


def test_the_table_has_a_line_for_each_point_and_names_the_best(settings, tmp_path, capsys):
    interpolate(settings(metric="retrieval/image_to_text_R@1/all"))
    lines = capsys.readouterr().out.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("coefficient "))
    assert lines[head].split("  ")[-1].strip() == "text to image, R@1"
    recalls = {}
    for line, point in zip(lines[head + 1 :], ("0.0", "0.5", "1.0"), strict=False):
        rows = {
            r.metric: r for r in read_results(tmp_path / f"sweep/coefficient-{point}.json")[::-1]
        }
        shown = [
            f"{100 * r.value:.1f} ({100 * r.low:.1f} to {100 * r.high:.1f})"
            for r in read_results(tmp_path / f"sweep/coefficient-{point}.json")
            if (r.metric, r.group) in HEADLINES
        ]
        assert line.split(maxsplit=1)[0] == point
        assert [cell in line for cell in shown] == [True] * 3
        recalls[point] = rows["image_to_text_R@1"].value
    best = max(recalls, key=lambda point: recalls[point])
    highest = f"highest retrieval/image_to_text_R@1/all: {recalls[best]:.4f} at {best}"
    last, _, remark = lines[-1].partition(";")
    assert last == highest
    if best != "0.0":
        assert re.match(
            r" the difference to 0\.0 (may be|is more than) chance \(p [<=] 0?1?\.", remark
        )


HEADLINES = {
    ("pair_accuracy", "all"),
    ("image_to_text_R@1", "all"),
    ("text_to_image_R@1", "all"),
}


def test_only_points_that_are_missing_are_measured(settings, tmp_path, measured, capsys):
    interpolate(settings())
    before = (tmp_path / "sweep" / "coefficient-0.5.json").stat().st_mtime_ns
    first = capsys.readouterr().out.splitlines()[-7:]
    interpolate(settings())
    assert measured == ["first@0.0", "first@0.5", "first@1.0"]
    assert capsys.readouterr().out.splitlines()[-7:] == first
    (tmp_path / "sweep" / "coefficient-1.0.json").unlink()
    (tmp_path / "sweep" / "coefficient-0.0.items.jsonl").unlink()
    interpolate(settings(sweep="0:1:0.25"))
    assert measured[3:] == ["first@0.0", "first@0.25", "first@0.75", "first@1.0"]
    assert (tmp_path / "sweep" / "coefficient-0.5.json").stat().st_mtime_ns == before


def test_points_of_other_models_or_settings_are_measured_again(settings, tmp_path, measured):
    interpolate(settings(sweep="0.5"))
    changed = [
        {"seed": 1},
        {"name": "other"},
        {"benchmarks": ("retrieval",)},
        {"final": str(make_run(tmp_path / "elsewhere" / "first", seed=2))},
        {"start": str(make_run(tmp_path / "third", seed=3))},
    ]
    for number, other in enumerate(changed, start=2):
        interpolate(settings(sweep="0.5", **other))
        interpolate(settings(sweep="0.5", **other))
        assert len(measured) == number


def test_other_shards_are_measured_again(settings, few_shards, measured):
    interpolate(settings(sweep="1"))
    interpolate(settings(sweep="1", shards=few_shards / "train"))
    interpolate(settings(sweep="1", shards=few_shards / "train"))
    assert len(measured) == 2


def test_a_point_that_was_cut_off_between_its_two_files_is_not_taken_for_whole(
    settings, tmp_path, measured, monkeypatch
):
    interpolate(settings(sweep="0.5"))
    written = results.atomic_write

    def full_disk(path: Path, *pieces: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        written(path, *pieces)

    other = {"sweep": "0.5", "final": str(make_run(tmp_path / "second", seed=2)), "name": "first"}
    monkeypatch.setattr(results, "atomic_write", full_disk)
    with pytest.raises(
        UserError, match=r"coefficient-0\.5\.json: cannot be written \(No space left"
    ):
        interpolate(settings(**other))
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["coefficient-0.5.items.jsonl"]
    monkeypatch.setattr(results, "atomic_write", written)
    interpolate(settings(**other))
    assert len(measured) == 3


@pytest.mark.parametrize(("most", "times"), [(2**30, 1), (SCENES * 3 * 32 * 32 - 1, 3)])
def test_images_are_decoded_once_where_they_fit_and_the_scores_are_the_same(
    settings, tmp_path, monkeypatch, most, times
):
    decode, decoded = embed.decode_image, []
    monkeypatch.setattr(embed, "decode_image", lambda data: decoded.append(1) or decode(data))
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", most)
    interpolate(settings(batch=7))
    assert len(decoded) == times * SCENES
    interpolate(settings(batch=7, sweep="1", out=tmp_path / "alone"))
    for name in ("coefficient-1.0.json", "coefficient-1.0.items.jsonl"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "sweep" / name).read_bytes()


def test_kept_images_come_from_workers_too(settings, tmp_path):
    interpolate(settings(sweep="0,1"))
    interpolate(settings(sweep="0,1", out=tmp_path / "two", workers=2))
    for name in ("coefficient-0.0.json", "coefficient-1.0.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "sweep" / name).read_bytes()


def test_only_the_chosen_benchmarks_are_measured(settings, tmp_path, capsys):
    interpolate(settings(sweep="1", benchmarks=("retrieval",)))
    rows = read_results(tmp_path / "sweep" / "coefficient-1.0.json")
    assert {row.benchmark for row in rows} == {"retrieval"}
    printed = capsys.readouterr().out
    assert "hard negatives" not in printed
    assert "highest retrieval/image_to_text_R@1/all" in printed


def test_an_existing_folder_stays_unless_it_holds_an_interpolated_model_and_is_to_be_replaced(
    settings, tmp_path
):
    folder = tmp_path / "half"
    interpolate(settings(**only_save(folder, "0.5")))
    before = load_file(folder / "model.safetensors")["logit_scale"]
    with pytest.raises(UserError, match="half: exists; choose another --save-to, or add --overw"):
        interpolate(settings(**only_save(folder, "1")))
    assert torch.equal(load_file(folder / "model.safetensors")["logit_scale"], before)
    interpolate(settings(**only_save(folder, "1", overwrite=True)))
    assert json.loads((folder / "origin.json").read_text())["interpolation"]["coefficient"] == "1.0"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="other files than interpolated weights"):
        interpolate(settings(**only_save(folder, "0", overwrite=True)))
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_the_model_before_and_no_half_one(settings, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "half"
    interpolate(settings(**only_save(folder, "0.5")))

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(UserError, match=r"half: cannot be written .*No space left on device"):
        interpolate(settings(**only_save(folder, "1", overwrite=True)))
    assert [path.name for path in folder.parent.iterdir()] == ["half"]
    assert json.loads((folder / "origin.json").read_text())["interpolation"]["coefficient"] == "0.5"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sweep": "0:1:0.3"}, "do not end at 1"),
        ({"benchmarks": ("retreival",)}, "there is no 'retreival'; did you mean 'retrieval'"),
        ({"metric": "pair_accuracy"}, "write BENCHMARK/METRIC/GROUP, such as hnc-shards/pair_"),
        ({"save": "2", "save_to": Path("x")}, "coefficient 2: must lie between 0"),
        ({"shards": Path("nowhere")}, "nowhere"),
    ],
)
def test_settings_that_must_fail_are_refused_before_models_are_loaded(
    settings, monkeypatch, flags, message
):
    monkeypatch.setattr(module, "load_endpoints", None)
    with pytest.raises(UserError, match=message):
        interpolate(settings(**flags))


def write_sugarcrepe(folder: Path, images: int) -> dict[str, Any]:
    """A question about each image in every file; the settings to measure them."""
    folder.mkdir()
    for number in range(images):
        Image.new("RGB", (32, 32), "red").save(folder / f"{number}.png")
    text = {"caption": "It is red.", "negative_caption": "It is blue."}
    questions = {str(n): {"filename": f"{n}.png", **text} for n in range(images)}
    for name in SUGARCREPE_FILES.values():
        (folder / name).write_text(json.dumps(questions))
    return {"data": f"sugarcrepe={folder}", "images": f"coco2017={folder}", "shards": None}


def test_points_on_some_of_the_questions_are_kept_for_as_few_images_only(
    settings, measured, tmp_path
):
    released = write_sugarcrepe(tmp_path / "crepe", 2)
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(tmp_path / "crepe" / "0.png", part)
    some = released | {"images": f"coco2017={part}", "allow_missing": True}
    for _ in range(2):
        interpolate(settings(**some))
        assert len(measured) == 3
    interpolate(settings(**released))
    assert len(measured) == 6
    interpolate(settings(**some))  # all questions are better than some
    assert len(measured) == 6


def test_released_benchmarks_are_swept_and_a_changed_file_is_measured_again(
    run, settings, measured, tmp_path, capsys
):
    folder = tmp_path / "crepe"
    released = write_sugarcrepe(folder, 1)
    interpolate(settings(**released))
    alone = tmp_path / "alone.json"
    where = {"data": released["data"], "images": released["images"], "workers": 0}
    evaluate(EvaluateConfig(models=(str(run),), out=alone, **where))
    assert values(tmp_path / "sweep" / "coefficient-1.0.json") == values(alone)
    assert "highest sugarcrepe/accuracy/all" in capsys.readouterr().out
    interpolate(settings(**released))
    assert len(measured) == 3
    (question,) = json.loads((folder / "swap_obj.json").read_text()).values()
    (folder / "swap_obj.json").write_text(json.dumps({"0": question, "1": question}))
    interpolate(settings(**released))
    assert len(measured) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metric": "sugarcrepe/accuracy/all"}, "a benchmark that is measured: hnc-shards"),
        ({"data": "sugarcrepe=nowhere"}, "no such file or folder"),
    ],
)
def test_benchmarks_that_are_not_there_are_refused_before_any_work(settings, flags, message):
    with pytest.raises(UserError, match=message):
        interpolate(settings(**flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"out": None}, "to measure, give --shards or --data, and --out"),
        ({"save": "0.5"}, "to write a model, give --save and --save-to"),
        ({"shards": None, "out": None}, "nothing to do"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_incomplete_settings_are_refused(settings, flags, message):
    with pytest.raises(UserError, match=message):
        settings(**flags)


def test_a_metric_that_no_group_has_is_reported_after_the_first_point(settings, measured):
    with pytest.raises(UserError, match="there is no score 'hnc-shards/pair_accuracy/swp'; did"):
        interpolate(settings(metric="hnc-shards/pair_accuracy/swp"))
    assert measured == ["first@0.0"]


def test_a_report_shows_a_run_whose_results_are_a_sweep(run, settings, tmp_path):
    interpolate(settings(out=run / "results"))
    report(ReportConfig(runs=(run,), out=tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert all(f"coefficient {point}" in page for point in ("0", "0.5", "1"))
