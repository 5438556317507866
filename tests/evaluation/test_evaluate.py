"""The whole evaluation of a model that recognises colours but not word order."""

import json
import re
from pathlib import Path

import pytest
import torch
from msgspec import structs

from hnc_ds.config import EvaluateConfig, PackConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import evaluate as module
from hnc_ds.evaluation.corruptions import corrupt
from hnc_ds.evaluation.encoder import NamedModel, model_name
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import PairItem, RankItem, read_items, read_results
from hnc_ds.records import TrainingSample
from hnc_ds.shards.images import decode_image, evaluation_view
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

COLOURS = ("red", "lime", "blue")
SIX = {"a": "red", "b": "red", "c": "lime", "d": "blue", "e": "lime", "f": "blue"}


@pytest.fixture
def run(monkeypatch, model, tmp_path) -> Path:
    monkeypatch.setattr(
        module, "load_named_model", lambda name: NamedModel(model_name(Path(name)), model)
    )
    return tmp_path / "runs" / "first"


def settings(run: Path, shards: Path, **other) -> EvaluateConfig:
    defaults = {"out": run / "results" / "val.json", "workers": 0}
    return EvaluateConfig(models=(str(run),), shards=shards, **(defaults | other))


def test_a_bag_of_words_separates_attributes_and_ties_on_swaps(run, make_shards, capsys):
    evaluate(settings(run, make_shards(SIX)))
    rows = {(r.group, r.metric): r for r in read_results(run / "results/val.json")}
    assert rows["attribute", "pair_accuracy"].value == 1
    assert rows["swap", "pair_accuracy"].value == 0
    assert rows["swap", "ties"].value == 1
    assert (rows["all", "pair_accuracy"].value, rows["all", "pair_accuracy"].count) == (0.5, 12)
    assert {row.model for row in rows.values()} == {"first"}
    printed = capsys.readouterr().out
    assert "6 images, 9 captions" in printed
    assert "6 pairs are ties, counted as wrong" in printed


def test_every_score_is_printed_on_request(run, make_shards, capsys):
    shards = make_shards(SIX)
    capsys.readouterr()
    evaluate(settings(run, shards, benchmarks=("hnc-shards",)))
    printed = capsys.readouterr().out
    assert "ties, swap" not in printed
    evaluate(settings(run, shards, benchmarks=("hnc-shards",), all=True))
    whole = capsys.readouterr().out
    for group in ("all", "attribute", "swap"):
        assert sum(line.startswith(f"ties, {group} ") for line in whole.splitlines()) == 1
    assert len(whole.splitlines()) == len(printed.splitlines()) + 2 + 3  # a heading, three groups


def test_images_with_the_same_caption_find_it_and_each_other(run, make_shards):
    evaluate(settings(run, make_shards(SIX)))
    rows = {r.metric: r.value for r in read_results(run / "results/val.json")}
    assert rows["image_to_text_R@1"] == rows["text_to_image_R@1"] == 1


def test_the_items_hold_what_the_scores_are_computed_from(run, make_shards):
    evaluate(settings(run, make_shards(SIX), name="other name"))
    path = run / "results/val.items.jsonl"
    header, items = read_items(path)
    assert header.model == "other name"
    assert (path.parent / header.shards / "index.json").is_file()
    assert not Path(header.shards).is_absolute()
    pairs = [item for item in items if isinstance(item, PairItem)]
    first = next(p for p in pairs if (p.key, p.type) == ("c", "attribute"))
    assert (first.positive, first.negative) == ("it is lime", "it is blue")
    assert first.positive_score == pytest.approx(1, abs=0.02)  # JPEG changes the colour a little
    assert first.margin > 0.9
    ranks = [item for item in items if isinstance(item, RankItem)]
    assert [item.key for item in ranks] == list(SIX)
    assert ranks[2].caption == "a lime field on a dot"


def test_a_threshold_of_validation_data_judges_captions_by_cosines(run, make_shards, capsys):
    """Colours are separated; of swaps all true or all false captions are right."""
    shards, again = make_shards(SIX), run / "results" / "again.json"
    evaluate(settings(run, shards))
    evaluate(settings(run, shards, out=again, threshold_from=run / "results/val.json"))
    rows = {(r.group, r.metric): r.value for r in read_results(again)}
    assert rows["attribute", "threshold_accuracy"] == 1
    assert rows["swap", "threshold_accuracy"] == 0.5
    assert rows["all", "auroc"] > 0.5
    assert ("all", "match_accuracy") not in rows
    assert "75.0% right at the threshold of the validation data, AUROC" in capsys.readouterr().out
    before = {(r.group, r.metric): r.value for r in read_results(run / "results/val.json")}
    assert {key: rows[key] for key in before} == before


def test_every_distinct_caption_is_encoded_exactly_once(run, make_shards, model):
    evaluate(settings(run, make_shards(SIX)))
    assert len(model.encoded) == len(set(model.encoded)) == 9


def test_only_what_a_chosen_benchmark_needs_is_encoded_and_its_rows_stay_the_same(
    run, make_shards, model
):
    shards = make_shards(SIX)
    evaluate(settings(run, shards))
    both = read_results(run / "results/val.json")
    for benchmark, captions in (("retrieval", 3), ("hnc-shards", 9)):
        model.encoded.clear()
        evaluate(settings(run, shards, benchmarks=(benchmark,)))
        rows = read_results(run / "results/val.json")
        assert rows == [row for row in both if row.benchmark == benchmark]
        assert len(model.encoded) == captions


def test_the_order_in_which_benchmarks_are_named_changes_nothing(run, make_shards):
    shards = make_shards(SIX)
    one, other = run / "one.json", run / "two.json"
    evaluate(settings(run, shards, out=one))
    evaluate(settings(run, shards, out=other, benchmarks=("retrieval", "hnc-shards")))
    assert one.read_bytes() == other.read_bytes()


def test_shards_without_hard_negatives_can_be_measured_by_retrieval_alone(
    run, make_shards, monkeypatch
):
    shards = make_shards(SIX)
    sample = ShardReader.sample

    def bare(reader: ShardReader, index: int) -> TrainingSample:
        found = sample(reader, index)
        groups = tuple(structs.replace(group, negatives=()) for group in found.groups)
        return structs.replace(found, groups=groups)

    monkeypatch.setattr(ShardReader, "sample", bare)
    with pytest.raises(UserError, match="holds no hard negatives; generate and pack them first"):
        evaluate(settings(run, shards))
    evaluate(settings(run, shards, benchmarks=("retrieval",)))
    assert len(read_results(run / "results/val.json")) == 6


def test_shards_that_were_packed_without_negatives_are_measured_by_retrieval(
    run, make_shards, monkeypatch, tmp_path
):
    shards = make_shards(SIX)
    lines = []
    for number in range(len(SIX)):
        one = ShardReader(shards).sample(number)
        groups = [{**structs.asdict(group), "negatives": []} for group in one.groups]
        lines.append({"image_id": one.image_id, "groups": groups})
    captions, images = tmp_path / "plain.jsonl", (tmp_path / "images",)
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = tmp_path / "plain"
    pack(PackConfig(captions=captions, images=images, out=plain, workers=1))
    evaluate(settings(run, plain))
    assert {row.benchmark for row in read_results(run / "results/val.json")} == {"retrieval"}
    with pytest.raises(UserError, match="holds no hard negatives"):
        evaluate(settings(run, plain, benchmarks=("hnc-shards",)))


def test_an_unknown_benchmark_is_refused_before_any_work(run, tmp_path):
    with pytest.raises(UserError, match="there is no 'retreival'; did you mean 'retrieval'"):
        evaluate(settings(run, tmp_path / "none", benchmarks=("retreival",)))


def test_results_are_the_same_bytes_for_any_batch_and_workers(run, make_shards):
    shards = make_shards(SIX)
    one, other = run / "one.json", run / "two.json"
    evaluate(settings(run, shards, out=one, batch=1, workers=0))
    evaluate(settings(run, shards, out=other, batch=5, workers=2))
    assert one.read_bytes() == other.read_bytes()


def test_results_are_a_plain_json_list_of_rows(run, make_shards):
    evaluate(settings(run, make_shards(SIX)))
    rows = json.loads((run / "results/val.json").read_text())
    assert set(rows[0]) == {
        "model", "benchmark", "version", "metric", "group", "value", "low", "high", "count"
    }  # fmt: skip
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_an_output_that_a_report_would_not_find_is_refused_before_any_work(run, tmp_path):
    with pytest.raises(UserError, match=r"--out is .*val\.txt; name a file that ends in \.json"):
        evaluate(settings(run, tmp_path / "none", out=run / "val.txt"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [("runs/first", "first"), ("runs/first/checkpoints/step-000500", "first/step-000500")],
)
def test_a_model_is_called_like_its_run(tmp_path, folder, name):
    assert model_name(tmp_path / folder) == name


def test_corrupted_images_score_as_those_corrupted_by_hand(run, make_shards, model, capsys):
    shards, severity = make_shards(SIX), 5
    evaluate(settings(run, shards, corruptions=(f"gaussian_noise:{severity}", "contrast:1")))
    rows = {(r.benchmark, r.metric, r.group): r for r in read_results(run / "results/val.json")}
    reader, right = ShardReader(shards), []
    for number, colour in enumerate(SIX.values()):
        view_3RR = evaluation_view(decode_image(reader.image_bytes(number)), model.image_settings)
        made = corrupt(
            view_3RR.permute(1, 2, 0).numpy(),
            "gaussian_noise",
            severity,
            seed=0,
            name=reader.key(number),
        )
        seen = made.reshape(-1, 3).mean(axis=0)
        true, false = (COLOURS.index(c) for c in (colour, "red" if colour == "blue" else "blue"))
        right += [seen[true] > seen[false], False]  # of a swap the model sees nothing
    worse = rows["hnc-shards", "pair_accuracy", f"gaussian_noise {severity}"]
    assert (worse.value, worse.count) == (sum(right) / 12, 12)
    mean = (worse.value + rows["hnc-shards", "pair_accuracy", "contrast 1"].value) / 2
    assert rows["hnc-shards", "pair_accuracy", "mPC"].value == pytest.approx(mean)
    assert rows["hnc-shards", "pair_accuracy", "rPC"].value == pytest.approx(mean / 0.5)
    assert ("retrieval", "text_to_image_R@5", "mPC") in rows
    printed = capsys.readouterr().out
    assert "pair_accuracy, severity" in printed
    assert "image_to_text_R@1, rPC" in printed


def test_several_models_are_measured_into_a_folder_and_shown_side_by_side(
    run, make_shards, tmp_path, capsys
):
    shards, out = make_shards(SIX), tmp_path / "both"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    models = (str(tmp_path / "one"), str(tmp_path / "two"))
    evaluate(EvaluateConfig(models=models, shards=shards, out=out))
    alone = tmp_path / "alone.json"
    evaluate(EvaluateConfig(models=models[:1], shards=shards, out=alone))
    assert (out / "one.json").read_bytes() == alone.read_bytes()
    assert {row.model for row in read_results(out / "two.json")} == {"two"}
    table = capsys.readouterr().out
    assert "(1) one" in table
    assert "50.0 (50.0 to 50.0)" in table


def test_side_by_side_only_what_interval_and_test_separate_is_marked(
    monkeypatch, model, make_shards, tmp_path, capsys
):
    """The second model takes every image for a red one, the third is the first."""
    blind = type(model)()
    red = torch.tensor([1.0, 0.0, 0.0])
    blind.encode_images = lambda images_B3RR: red.expand(len(images_B3RR), 3)
    models = {"sees": model, "blind": blind, "again": model}
    monkeypatch.setattr(module, "load_named_model", lambda name: NamedModel(name, models[name]))
    shards = make_shards({f"{n:02}": COLOURS[n % 3] for n in range(15)})
    evaluate(EvaluateConfig(models=tuple(models), shards=shards, out=tmp_path / "both"))
    table = capsys.readouterr().out.rpartition("(1) sees")[2]
    lines = {line.split("  ")[1]: line for line in table.splitlines() if line.startswith("  ")}
    signs = {name: re.findall(r"\)( [-+ ])", f"{line}  ") for name, line in lines.items()}
    assert signs["pair_accuracy, attribute"] == ["  ", " -", "  "]
    assert signs["pair_accuracy, swap"] == ["  ", "  ", "  "]
    assert signs["image_to_text_R@1"] == ["  ", " -", "  "]
    assert "+ better and - worse in a model than in (1) mark differences" in table
    assert "*" not in table


@pytest.mark.parametrize(
    ("models", "out", "message"),
    [
        (("a", "b"), "x.json", r"for several models \(a, b\), name a folder"),
        (("a/b:x", "a-b:x"), "x", "a/b:x and a-b:x would share a file"),
        (("a",), "x", "name a file that ends in .json"),
    ],
)
def test_outputs_that_do_not_fit_the_models_are_refused(models, out, message):
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateConfig(models=models, shards="none", out=Path(out)))


def test_a_name_is_for_one_model():
    with pytest.raises(UserError, match="--name is for one model"):
        EvaluateConfig(models=("a", "b"), shards="none", out=Path("x"), name="n")
    with pytest.raises(UserError, match="no model"):
        EvaluateConfig(models=(), shards="none", out=Path("x"))
