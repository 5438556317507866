"""Image-text matching models train, resume and open in transformers; their steps are exact."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from hnc_ds.checkpoint import newest_checkpoint
from hnc_ds.config import DataConfig, EvaluateConfig, LossConfig, TrainConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import read_measurement
from hnc_ds.model.cross_encoder import KINDS, load_cross_encoder
from hnc_ds.objective.matching import MatchInputs, match_objective
from hnc_ds.shards.loader import Batch
from hnc_ds.shards.reader import ShardReader
from hnc_ds.train import main
from hnc_ds.training.matching import _Drawn, check_settings
from tests.cross_encoders import MADE, save_cross_encoder

FEW = "--log_every 1 --save_every 2 --hard_negatives 2 --unrelated_negatives 1"


@pytest.fixture(scope="module")
def folders(scene_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    reader = ShardReader(scene_shards / "train")
    captions = (group.positive for n in range(20) for group in reader.sample(n).groups)
    words = sorted({word for caption in captions for word in caption.replace(".", " .").split()})
    return {kind: save_cross_encoder(base / kind, kind, words) for kind in MADE}


@pytest.fixture
def cpu_config(tmp_path: Path) -> Path:
    return deepspeed(tmp_path / "cpu.json")


def deepspeed(path: Path, **more: Any) -> Path:
    adam = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
    zero = {"zero_optimization": {"stage": 1}}
    path.write_text(json.dumps({"train_batch_size": 8, "optimizer": adam, **zero, **more}))
    return path


def train(folder: Path, shards: Path, run: Path, config: Path, more: str = "") -> int:
    given = f"--deepspeed_config {config} --shards {shards / 'train'} --run {run} {FEW} {more}"
    return main([*given.split(), "--model", f"hf:{folder}"])


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def odds(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def made() -> MatchInputs:
    """Two rows: one with both negatives, one with an empty slot and no unrelated caption."""
    return MatchInputs(
        torch.tensor([1.0, -0.5], dtype=torch.float64),
        odds([0.3, -2.0], [0.7, 99.0]),
        odds([-1.0], [99.0]),
        torch.tensor([[True, True], [True, False]]),
        torch.tensor([[True], [False]]),
    )


def test_itm_is_its_formula() -> None:
    def no(value: float) -> float:
        return float(np.log1p(np.exp(value)))

    first = (no(-1.0) + (2 * no(0.3) + 2 * no(-2.0) + no(-1.0)) / 5) / 2
    second = (no(0.5) + no(0.7)) / 2
    found = match_objective(made(), LossConfig(terms={"itm": 1.0}), alpha=2.0)
    assert found.total.item() == pytest.approx((first + second) / 2, rel=1e-12)
    plain = match_objective(made(), LossConfig(terms={"itm": 1.0}), alpha=0.0)
    expected = ((no(-1.0) + no(-1.0)) / 2 + no(0.5) / 2) / 2
    assert plain.total.item() == pytest.approx(expected, rel=1e-12)


def test_the_margin_is_its_formula() -> None:
    found = match_objective(made(), LossConfig(terms={"match_margin": 3.0}, match_gamma=1.5), 1.0)
    first = (max(0, 1.5 - 1.0 + 0.3) + max(0, 1.5 - 1.0 - 2.0)) / 2
    second = 1.5 + 0.5 + 0.7
    assert found.total.item() == pytest.approx(3 * (first + second) / 2, rel=1e-12)


def test_cross_entropy_of_two_logits_is_itm_on_their_difference() -> None:
    logits = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits, torch.ones(7, dtype=torch.int64))
    torch.testing.assert_close(F.softplus(logits[:, 0] - logits[:, 1]).mean(), expected)


def test_an_empty_slot_has_no_gradient() -> None:
    inputs = made()
    hard_BK = inputs.hard_BK.clone().fill_(1e4).requires_grad_()
    both = LossConfig(terms={"itm": 1.0, "match_margin": 1.0})
    match_objective(inputs._replace(hard_BK=hard_BK), both, 1.0).total.backward()
    assert hard_BK.grad is not None
    assert (hard_BK.grad != 0).tolist() == [[True, True], [True, False]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_a_model_of_every_kind_trains_resumes_and_opens_in_transformers(
    folders: dict[str, Path], scene_shards: Path, cpu_config: Path, tmp_path: Path, kind: str
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    more = "--terms itm 1 match_margin 0.1"
    assert train(folders[kind], scene_shards, whole, cpu_config, f"{more} --steps 4") == 0
    assert train(folders[kind], scene_shards, stopped, cpu_config, f"{more} --steps 2") == 0
    resumed = f"{more} --steps 4 --resume"
    assert train(folders[kind], scene_shards, stopped, cpu_config, resumed) == 0
    assert losses(stopped) == losses(whole)
    assert len(losses(whole)) == 4
    folder = newest_checkpoint(whole)
    opened = getattr(transformers, KINDS[kind].class_name).from_pretrained(folder)
    start = getattr(transformers, KINDS[kind].class_name).from_pretrained(folders[kind])
    ours = load_cross_encoder(str(folder)).towers.state_dict()
    for name, value in opened.state_dict().items():
        assert torch.equal(value, ours[name]), name
        assert value.shape == start.state_dict()[name].shape, name
    changed = [n for n, v in start.state_dict().items() if not torch.equal(v, ours[n])]
    assert len(changed) > 10


def test_parts_of_a_batch_and_recomputed_activations_give_the_losses_of_the_whole(
    folders: dict[str, Path], scene_shards: Path, cpu_config: Path, tmp_path: Path
) -> None:
    parts = deepspeed(tmp_path / "parts.json", gradient_accumulation_steps=2)
    blip, more = folders["blip"], "--preset hnc-itm --steps 3"
    assert train(blip, scene_shards, tmp_path / "whole", cpu_config, more) == 0
    again = f"{more} --grad_checkpointing"
    assert train(blip, scene_shards, tmp_path / "parts", parts, again) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


EMBEDS = "--terms itm 1 contrastive 0.5 margin 0.1 --mined_negatives 2"


@pytest.mark.parametrize(("kind", "more"), [("vilt", ""), ("blip", EMBEDS), ("flava", EMBEDS)])
def test_two_ranks_train_as_one_process(
    folders: dict[str, Path],
    scene_shards: Path,
    tmp_path: Path,
    run_on_ranks: Callable[..., None],
    kind: str,
    more: str,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    sgd = deepspeed(
        tmp_path / "sgd.json",
        optimizer={"type": "SGD", "params": {"lr": 0.1}},
        zero_allow_untested_optimizer=True,
    )
    more = f"--steps 3 {more}"
    assert train(folders[kind], scene_shards, one, sgd, more) == 0
    run_on_ranks(2, train_on_a_rank, folders[kind], scene_shards, two, sgd, more)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (load_cross_encoder(str(newest_checkpoint(run))) for run in (one, two))
    for (name, p), q in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5, msg=name)


def train_on_a_rank(folder: Path, shards: Path, run: Path, config: Path, more: str) -> None:
    assert train(folder, shards, run, config, more) == 0


def test_similar_captions_of_other_images_are_drawn_more_often(
    folders: dict[str, Path], scene_shards: Path
) -> None:
    encoder = load_cross_encoder(str(folders["blip"]))
    data = DataConfig(shards=str(scene_shards / "train"), mined_negatives=1)
    config = TrainConfig(data=data, loss=LossConfig(terms={"itm": 1.0}, tau=0.5))
    token_TL = torch.tensor([[1, 5, 2, 0], [1, 6, 7, 2], [1, 8, 2, 0], [1, 9, 2, 0]])
    batch = batch_of(encoder.tokenize, token_TL, torch.tensor([7, 8, 9, 7]))
    image_BD = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    text_TD = torch.tensor([[0.0, 1], [0, 1], [0.6, 0.8], [1, 0]])
    counts = torch.zeros(4, 4)
    for seed in range(2000):
        drawn = _Drawn(batch, config, seed)
        token_BML, used_BM = drawn(image_BD, text_TD)
        assert drawn.used_BM.all()
        for row in range(4):
            found = [torch.equal(token_BML[row, 0], token_TL[column]) for column in range(4)]
            counts[row, found.index(True)] += 1
            assert used_BM[row, 0] == batch.used_T[found.index(True)]
    weights = torch.exp(image_BD @ text_TD.T / 0.5)
    same = torch.eye(4).bool()
    same[0, 3] = same[3, 0] = True
    expected = weights.masked_fill(same, 0)
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(counts / 2000, expected, rtol=0, atol=0.04)


def test_few_others_leave_slots_empty(folders: dict[str, Path], scene_shards: Path) -> None:
    encoder = load_cross_encoder(str(folders["blip"]))
    data = DataConfig(shards=str(scene_shards / "train"), mined_negatives=3)
    drawn = _Drawn(
        batch_of(encoder.tokenize, torch.tensor([[1, 5, 2], [1, 6, 2]]), torch.tensor([1, 2])),
        TrainConfig(data=data, loss=LossConfig(terms={"itm": 1.0})),
        seed=0,
    )
    token_BML, _ = drawn(torch.eye(2), torch.eye(2))
    assert token_BML.shape[:2] == (2, 2)
    assert drawn.used_BM.tolist() == [[True, False], [True, False]]


def batch_of(tokenize: Any, token_TL: torch.Tensor, text_index_T: torch.Tensor) -> Batch:
    """Images with one caption each, and nothing else."""
    rows = torch.arange(len(token_TL))
    none = torch.empty(len(rows), 0, dtype=torch.int64)
    used_T = tokenize.used_tokens(token_TL)
    return Batch(
        torch.empty(0), token_TL, rows, none, none, none, none, rows, text_index_T, used_T, ()
    )


def test_terms_on_embeddings_need_the_whole_batch(
    folders: dict[str, Path],
    scene_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = deepspeed(tmp_path / "parts.json", gradient_accumulation_steps=2)
    more = "--steps 1 --terms itm 1 contrastive 1"
    assert train(folders["blip"], scene_shards, tmp_path / "run", parts, more) == 2
    assert "gradient_accumulation_steps is 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_measured_while_it_trains_and_evaluated_as_its_checkpoint(
    folders: dict[str, Path],
    scene_shards: Path,
    few_scenes: Path,
    cpu_config: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    more = f"--steps 2 --ema 0.5 --eval_shards {few_scenes}"
    assert train(folders["flava"], scene_shards, run, cpu_config, more) == 0
    folder = newest_checkpoint(run)
    assert load_cross_encoder(str(folder / "average")).scalars == ()

    def scores(name: str, model: str) -> dict[Any, float]:
        out = tmp_path / f"{name}.json"
        evaluate(EvaluateConfig(models=(model,), shards=str(few_scenes), out=out, workers=0))
        rows = read_measurement(out).rows
        return {key: row.value for key, row in rows.items() if key[1] != "ties"}

    found = scores("run", str(run))
    assert found == scores("checkpoint", str(folder)) == scores("folder", f"hf:{folder}")
    measured = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    averaged = scores("average", f"hf:{folder / 'average'}")
    assert averaged != found
    key = ("hnc-shards", "pair_accuracy", "all")
    assert measured["eval/hnc-shards/pair_accuracy/all"] == averaged[key]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("--terms contrastive 1", "terms: none is about matches"),
        ("--preset negclip", "terms: none is about matches"),
        ("--terms itm 1 distill 1", "terms: itm, distill need a reference model"),
        ("--terms itm 1 l2_sp 1", "terms: itm, l2_sp need a reference model"),
        ("--terms itm 1 sigmoid 1", "terms: itm, sigmoid need a bias"),
        ("--towers text", "towers, last_blocks"),
        ("--lora_rank 2", "towers, last_blocks"),
        ("--compile", "compile: is not for"),
        ("--pretrained openai", "pretrained: is not for"),
        ("--positives 2", "positives: is not for"),
        ("--tau 0.1", "tau: is not for"),
        ("--hard_negatives 0 --unrelated_negatives 0", "captions that do not match"),
        ("--alpha 0 --unrelated_negatives 0", "captions that do not match"),
    ],
)
def test_settings_of_models_with_embeddings_are_refused(
    folders: dict[str, Path],
    scene_shards: Path,
    cpu_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: str,
    problem: str,
) -> None:
    run = tmp_path / "run"
    assert train(folders["blip"], scene_shards, run, cpu_config, f"--steps 1 {more}") == 2
    assert problem in capsys.readouterr().err
    assert not run.exists()


def test_terms_of_matches_are_refused_for_models_with_embeddings() -> None:
    with pytest.raises(UserError, match="itm is of image-text matching models"):
        check_settings(TrainConfig(loss=LossConfig(terms={"itm": 1.0})))


def test_a_missing_head_is_made_the_same_on_every_start_and_said(
    folders: dict[str, Path],
    scene_shards: Path,
    cpu_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    headless = tmp_path / "vilt"
    shutil.copytree(folders["vilt"], headless)
    whole = transformers.ViltForImageAndTextRetrieval.from_pretrained(headless)
    whole.vilt.save_pretrained(headless)
    for run in ("one", "two"):
        assert train(headless, scene_shards, tmp_path / run, cpu_config, "--steps 1") == 0
        assert "rank_output.bias and the rest of the head" in capsys.readouterr().err
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
