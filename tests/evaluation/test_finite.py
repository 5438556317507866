"""NaN and infinity: they end an evaluation, and where one came through it would count as wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hnc_ds.config import EvaluateConfig, InterpolateConfig, MineConfig, ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import encoder as models_module
from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.held_out import hits, rank_first_right
from hnc_ds.evaluation.mine import mine, nearest_rows
from hnc_ds.evaluation.released.rules import DEV, EACH_ITS_OWN, FIRST, ImageRef, Question, Scores
from hnc_ds.evaluation.released.summary import (
    judge_single_captions,
    pairs_as_labels,
    single_captions,
)
from hnc_ds.evaluation.similarity import Products
from hnc_ds.evaluation.statistics import permutation_test
from hnc_ds.interpolation import best_point, interpolate
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.records import Result

COLOURS = {"a": "red", "b": "lime", "c": "blue"}
CPU = torch.device("cpu")
WEIGHT = "visual.conv1.weight"
SHAPES = {
    FIRST: (1, 4),
    EACH_ITS_OWN: (2, 2),
    frozenset({(0, 0), (0, 1)}): (1, 3),
}
"""Images and captions by what belongs together, as the rules have them."""
MATCH = {"sugarcrepe++": frozenset({(0, 0), (0, 1)})} | dict.fromkeys(
    ("winoground", "eqben", "bivlc", "cola", "mmvp"), EACH_ITS_OWN
)
RULES = [name for name, known in RELEASED.items() if known.rule is not None]


def broken(folder: Path, name: str = WEIGHT, value: float = math.nan) -> Path:
    """A checkpoint folder with one weight that is not finite."""
    clip = load_model(ModelConfig(), seed=0)
    state = {n: t.detach().clone() for n, t in clip.state_by_open_clip_name().items()}
    state[name].view(-1)[0] = value
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(clip.config))
    return folder


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("weight", [WEIGHT, "logit_scale"])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_written(
    scene_shards: Path, tmp_path: Path, weight: str, value: float
) -> None:
    folder, out = broken(tmp_path / "first", weight, value), tmp_path / "out.json"
    message = rf"^first: the weight {weight} is not finite \(NaN or infinity\); take an earlier"
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateConfig(models=(str(folder),), shards=scene_shards / "val", out=out))
    assert not out.exists()


def test_interpolating_and_mining_refuse_such_a_weight_too(
    scene_shards: Path, tmp_path: Path
) -> None:
    folder, message = broken(tmp_path / "first"), rf"first: the weight {WEIGHT} is not finite"
    shards = scene_shards / "val"
    ends = {"start": str(folder), "final": str(folder)}
    sweep = InterpolateConfig(**ends, shards=shards, out=tmp_path / "sweep")
    with pytest.raises(UserError, match=message):
        interpolate(sweep)
    with pytest.raises(UserError, match=message):
        mine(MineConfig(run=folder, shards=shards, out=tmp_path / "s.safetensors"))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_an_embedding_that_is_not_finite_is_named_with_model_and_first_row(
    make_shards: Callable[[dict[str, str]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tower: str,
) -> None:
    """Also where all weights are finite, as where a product overflows."""
    clip, encode = load_model(ModelConfig(), seed=0), f"encode_{tower}s"
    whole = getattr(Clip, encode)

    def second_is_nan(self: Clip, rows: torch.Tensor) -> torch.Tensor:
        return whole(self, rows).index_fill(0, torch.tensor([1]), math.nan)

    monkeypatch.setattr(Clip, encode, second_is_nan)
    monkeypatch.setattr(models_module, "load_trained", lambda *_: clip)
    (tmp_path / "first").mkdir()
    config = EvaluateConfig(
        models=(str(tmp_path / "first"),),
        shards=make_shards(COLOURS),
        out=tmp_path / "out.json",
        cache=tmp_path / "cache",
    )
    row = "b" if tower == "image" else "'[^']+'"
    message = (
        rf"^first: the {tower} embedding of {row} is not finite \(NaN or infinity\), of 1 of \d"
    )
    with pytest.raises(UserError, match=message + ".* its weights are all finite"):
        evaluate(config)
    assert not config.out.exists()
    kept = {path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*")}
    assert kept == set() if tower == "image" else kept == {"images"}


def test_a_model_that_broke_while_it_ran_is_named_with_its_weight() -> None:
    clip = load_model(ModelConfig(), seed=0).eval()
    with torch.no_grad():
        clip.towers.token_embedding.weight.fill_(math.nan)
    with pytest.raises(UserError, match=r"^step-7: the text .* its weight token_embedding\.weight"):
        Encoder(clip, CPU, 4, 1, name="step-7").texts(["a red dog"])


numbers = st.floats(-1, 1, width=32)


def question(name: str) -> Question:
    match = MATCH.get(name, FIRST)
    images, captions = (2, 1) if name == "svo" else SHAPES[match]
    return Question("q", (ImageRef("vg", "1.jpg"),) * images, ("c",) * captions, match, "g")


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_score_that_is_nan_never_helps_under_any_rule(name: str, data: st.DataObject) -> None:
    asked, rule = question(name), RELEASED[name].rule
    images, captions = len(asked.images), len(asked.captions)
    cells = data.draw(st.lists(numbers, min_size=images * captions, max_size=images * captions))
    texts = data.draw(st.lists(numbers, min_size=captions**2, max_size=captions**2))
    both = [
        np.array(cells, np.float32).reshape(images, captions),
        np.array(texts, np.float32).reshape(captions, captions),
    ]
    assert rule is not None
    before = rule(asked, Scores(*both)).right
    which = data.draw(st.integers(0, 1))
    both[which].reshape(-1)[data.draw(st.integers(0, both[which].size - 1))] = np.nan
    after = rule(asked, Scores(*both)).right
    assert all(after[metric] <= before[metric] for metric in before)
    nowhere = [np.full_like(part, np.nan) for part in both]
    assert not any(rule(asked, Scores(*nowhere)).right.values())


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_similarity_that_is_nan_never_helps_a_search(data: st.DataObject) -> None:
    """Queries are rows, and the gallery the identity: so similarities are the rows themselves."""
    rows = data.draw(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=3, max_size=3))
    query_QD, gallery_GD = torch.tensor(rows), torch.eye(4)
    right = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3])
    query, column = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    for ties_first in (True, False):
        before = rank_first_right(Products(query_QD, gallery_GD), *right, ties_first=ties_first)
        # NaN in a product makes the whole row NaN, as that of a real model does.
        bad_QD = query_QD.clone()
        bad_QD[query, column] = math.nan
        after = rank_first_right(Products(bad_QD, gallery_GD), *right, ties_first=ties_first)
        assert (after >= before).all()
        found = hits(after, after)
        assert not any(hit_Q[query] for hit_Q in found.values())


def test_of_a_right_and_a_wrong_answer_one_without_a_score_counts_against_the_query() -> None:
    query, one = torch.tensor([[0.5, 1.0]]), np.array([0])
    wrong_is_nan = torch.tensor([[1.0, 0.0], [math.nan, math.nan]])
    assert rank_first_right(Products(query, wrong_is_nan), one, one).tolist() == [1]
    assert rank_first_right(Products(query, wrong_is_nan), one, np.array([1])).item() > 10**9
    both = np.array([0, 0]), np.array([0, 1])
    assert rank_first_right(Products(query, wrong_is_nan), *both).item() > 10**9


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_score_that_is_nan_never_helps_where_captions_are_judged_one_by_one(
    data: st.DataObject,
) -> None:
    image = ImageRef("gqa", "1")
    pairs = [Question(f"{n}", (image,), ("t", "f"), FIRST, "g") for n in range(4)]
    singles = [
        Question(f"{n}", (image,), ("c",), FIRST if n % 2 else frozenset(), "g", tags)
        for n, tags in enumerate(((DEV,), (DEV,), (DEV,), (), (), (), ()))
    ]
    for questions, captions, values in ((pairs, 2, pairs_as_labels), (singles, 1, single_captions)):
        size = len(questions) * captions
        score = np.array(data.draw(st.lists(numbers, min_size=size, max_size=size)), np.float32)
        before = found(values, questions, score.reshape(-1, captions))
        score[data.draw(st.integers(0, size - 1))] = np.nan
        after = found(values, questions, score.reshape(-1, captions))
        worse = {key for key, value in after.items() if not value <= before[key]}
        assert worse <= {("margin", "all")}  # which is then no number itself
        assert all(math.isnan(after[key]) for key in worse)
    nowhere = [Scores(np.full((1, 1), np.nan), np.eye(1)) for _ in singles]
    assert not judge_single_captions(singles, nowhere)["accuracy"].right_Q.any()


def found(
    values: Callable[..., object], questions: list[Question], score: np.ndarray
) -> dict[tuple[str, str], float]:
    scores = [Scores(row[None], np.eye(len(row))) for row in score]
    rows = values(questions, scores, 0)
    return {(metric, group): i.value for metric, group, i in rows}  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [5, 60])
def test_a_difference_that_is_nan_is_by_chance(size: int) -> None:
    """All flips of five images are counted, of sixty some are drawn."""
    better = np.ones(size)
    assert permutation_test(np.zeros(size), better, np.arange(size)) < 0.07
    better[2] = np.nan
    assert permutation_test(np.zeros(size), better, np.arange(size)) == 1


def test_a_row_without_similarity_is_a_neighbour_only_after_all_others() -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.manual_seed(0)), dim=1)
    rows[2] = math.nan
    nearest_NK, cosine_NK = nearest_rows(rows, torch.arange(4), 3)
    assert [nearest_NK[row][2] for row in (0, 1, 3)] == [2, 2, 2]
    assert np.isfinite(cosine_NK).all()


def test_the_best_point_of_a_sweep_is_none_without_a_value() -> None:
    def row(value: float) -> list[Result]:
        return [Result("m", "b", 1, "acc", "all", value, value, value, 1)]

    points = {"0.0": row(math.nan), "0.5": row(0.2), "1.0": row(0.1)}
    assert best_point(points, "b/acc/all")[0] == "0.5"
