"""True and false captions separated by one similarity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hnc_ds.evaluation.released.rules import DEV, FIRST, ImageRef, Question, Scores
from hnc_ds.evaluation.released.summary import (
    RATIOS,
    best_threshold,
    judge_single_captions,
    leads_by,
    outcomes_of_captions,
    pairs_as_labels,
    single_captions,
)
from hnc_ds.evaluation.statistics import bootstrap_auroc


def scored(*row: float) -> Scores:
    return Scores(np.array([row], np.float32), np.eye(len(row), dtype=np.float32))


def pair(image: str, group: str) -> Question:
    return Question(image, (ImageRef("gqa", image),), ("t", "f"), FIRST, group)


def single(number: int, label: bool, *tags: str) -> Question:
    match = FIRST if label else frozenset[tuple[int, int]]()
    return Question(str(number), (ImageRef("gqa", f"{number}"),), ("c",), match, "on", tags)


def test_the_area_is_scikit_learns_with_ties_and_its_interval_that_of_resampled_images() -> None:
    random = np.random.default_rng(0)
    label, image = random.random(400) < 0.4, random.integers(80, size=400)
    score = np.round(random.normal(size=400) + label, 1)  # with many ties
    found = bootstrap_auroc(score, label, image, seed=1, resamples=400)
    assert found.value == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    areas = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(image == i) for i in random.integers(80, size=80)])
        areas.append(roc_auc_score(label[rows], score[rows]))
    assert [found.low, found.high] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.02)
    with pytest.raises(ValueError, match="true and false"):
        bootstrap_auroc([1, 2], [True, True], [0, 1])


def test_the_best_threshold_makes_the_fewest_mistakes_whatever_the_scores() -> None:
    random = np.random.default_rng(2)
    for _ in range(200):
        score = random.integers(4, size=6).astype(np.float32)
        label = random.random(6) < 0.5
        found = best_threshold(score, label)
        mistakes = [((score >= at) != label).sum() for at in (*np.unique(score), np.inf)]
        assert ((score >= found) != label).sum() == min(mistakes)


def test_hnc_pairs_are_also_scored_by_area_threshold_and_ratio() -> None:
    questions = [pair("a", "relation"), pair("b", "relation"), pair("b", "object")]
    scores = [scored(0.4, 0.2), scored(0.33, 0.3), scored(0.1, 0.1)]
    found = {(m, g): i.value for m, g, i in pairs_as_labels(questions, scores, 0)}
    assert found["auroc", "relation"] == 1
    assert found["auroc", "object"] == 0.5
    assert found["auroc", "all"] == pytest.approx((3 + 3 + 0.5) / 9)
    assert found["best_threshold_accuracy", "relation"] == 1
    assert found["ratio_1", "all"] == pytest.approx(2 / 3)  # a tie is wrong
    assert found["ratio_1.2", "all"] == pytest.approx(1 / 3)
    assert found["margin", "relation"] == pytest.approx(0.115)


cosines = st.floats(-1, 1, width=32)


@given(st.lists(st.tuples(cosines, cosines), min_size=1), st.floats(1, 4))
def test_a_ratio_of_one_is_pair_accuracy_and_a_higher_one_never_gives_more(
    pairs: list[tuple[float, float]], ratio: float
) -> None:
    true_N, false_N = np.array(pairs, np.float32).T
    last = true_N > false_N
    assert (leads_by(1, true_N, false_N) == last).all()
    for times in (*RATIOS, ratio + 2):
        assert (leads_by(times, true_N, false_N) <= last).all()
        last = leads_by(times, true_N, false_N)


@given(st.floats(2**-10, 1, width=32), st.floats(2**-10, 1, width=32), st.floats(1.001, 4))
def test_where_both_are_positive_the_ratio_is_that_of_earlier_work_on_hnc(
    true: float, false: float, ratio: float
) -> None:
    """positive / negative >= R; where one of the two is not above 0, what its sign gives."""
    leads = leads_by(ratio, *np.float32([[true], [false]])).item()
    assert leads == (np.float32(true) >= np.float32(ratio) * np.float32(false))
    assert leads_by(ratio, *np.float32([[true, true], [-false, 0]])).all()
    assert not leads_by(ratio, *np.float32([[-true, 0], [false, false]])).any()
    below = leads_by(ratio, *np.float32([[-false], [-true]])).item()
    assert below == leads  # as far apart, below 0


def test_a_random_model_scores_half_at_a_ratio_of_one_and_less_above() -> None:
    true_N, false_N = np.random.default_rng(0).normal(0, 0.05, (2, 10_000)).astype(np.float32)
    shares = [leads_by(ratio, true_N, false_N).mean() for ratio in RATIOS]
    assert shares[0] == pytest.approx(0.5, abs=0.02)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] > 0.25  # half of the pairs are of two signs, and half of those are right


def test_a_threshold_is_chosen_on_the_dev_captions_and_scored_on_the_others() -> None:
    dev = [(0.1, False), (0.2, True), (0.3, True)]
    test = [(0.15, True), (0.25, True), (0.05, False), (0.35, False)]
    questions = [single(n, label, DEV) for n, (_, label) in enumerate(dev)]
    questions += [single(10 + n, label) for n, (_, label) in enumerate(test)]
    scores = [scored(score) for score, _ in (*dev, *test)]
    found = {(m, g): i.value for m, g, i in single_captions(questions, scores, 0)}
    assert found["accuracy", "all"] == 2 / 4  # from 0.2 on
    assert found["auroc", "all"] == 0.5
    judged = judge_single_captions(questions, scores)["accuracy"]
    assert judged.right_Q.tolist() == [False, True, True, False]
    assert judged.cluster_Q.tolist() == [f"gqa/{n}" for n in range(10, 14)]
    outcomes = outcomes_of_captions(questions, scores)
    assert [o.right for o in outcomes[:3]] == [{}] * 3  # they chose the threshold
    assert [o.right["accuracy"] for o in outcomes[3:]] == judged.right_Q.tolist()
    without = dict.fromkeys(m for m, _, _ in single_captions(questions[3:], scores[3:], 0))
    assert list(without) == ["auroc"]


def test_captions_that_are_all_true_have_no_area() -> None:
    questions = [single(n, True) for n in range(3)]
    assert list(single_captions(questions, [scored(0.1)] * 3, 0)) == []
