"""Bootstrap intervals, permutation tests, and when a difference is marked. NumPy only, no torch.

Pairs of one image are not independent, so resampling draws whole images (clusters). A difference on
the same items is marked if its 95 % interval excludes 0 and p of the paired permutation test, Holm
corrected over the rows of its table, is below 0.05.

Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997 (percentile interval,
cluster bootstrap); Holm, "A simple sequentially rejective multiple test procedure", 1979.
"""

# SciPy is not used: its bootstrap sums in another order, so results would differ in the last digit,
# and on 2,000 clusters its permutation test takes 160 times as long, with other p.

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
TAIL = 0.025
"""Probability beyond each end of a 95 % interval."""
LEVEL = 0.05
BETTER, WORSE, UNCLEAR = "better", "worse", ""

_DRAWS_AT_ONCE = 4_000_000
"""Cells of a block of resamples: about 64 MB."""
_WIDTH = 100

RULE = (
    "differences on the same items whose 95 % interval excludes 0 and whose paired permutation "
    "test has p < 0.05, corrected over the rows of the table (Holm)"
)
"""For legends: which differences are marked."""

SIGN = {BETTER: "+", WORSE: "-", UNCLEAR: " "}
"""Marks in a terminal."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its 95 % interval, and the number of values."""

    value: float
    low: float
    high: float
    count: int


class Change(NamedTuple):
    """A second model minus a first one, in one row of a table."""

    difference: Interval
    p: float
    """Of the paired permutation test."""
    lower_is_better: bool = False


class Judgement(NamedTuple):
    """Verdict on a change, together with the other rows of its table."""

    verdict: str
    """BETTER, WORSE or UNCLEAR (not marked)."""
    p: float
    """Corrected over the rows of the table."""


def bootstrap_means(
    columns: Mapping[str, npt.ArrayLike],
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Means of several columns over the same items, with intervals from the same resamples.

    Args:
        columns: N values by name. Bool columns are fractions; if all values of one agree, its
            interval is the exact binomial one (Clopper and Pearson 1934), clusters as trials.
        cluster: N labels, numbers or strings; items of one label are drawn together.
        seed: Seed of the resamples.
        resamples: Number of resamples.

    Raises:
        ValueError: There are no items, or columns differ in length.
    """
    label_N = np.asarray(cluster)
    if not len(label_N) or any(len(np.asarray(c)) != len(label_N) for c in columns.values()):
        raise ValueError("bootstrap needs at least one item and a value of each column for it")
    cluster_N = _numbered(label_N)
    size_C = np.bincount(cluster_N)
    sums_CK = np.stack(
        [np.bincount(cluster_N, weights=np.asarray(c, dtype=float)) for c in columns.values()], 1
    )
    means_RK = _resampled_means(sums_CK, size_C, seed, resamples)
    ends_2K = np.quantile(means_RK, [TAIL, 1 - TAIL], axis=0)
    return {
        name: _around(float(value_N.mean(dtype=float)), value_N, ends, len(size_C))
        for name, value_N, ends in zip(
            columns, map(np.asarray, columns.values()), ends_2K.T, strict=True
        )
    }


def bootstrap_mean(
    values: npt.ArrayLike, cluster: npt.ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """`bootstrap_means` of one column."""
    return bootstrap_means({"": values}, cluster, seed=seed, resamples=resamples)[""]


def bootstrap_ratio(
    above: npt.ArrayLike,
    below: npt.ArrayLike,
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The ratio of two means over the same items, resampled together.

    Raises:
        ValueError: There are no items, or the mean of ``below`` is 0.
    """
    above_N, below_N = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if not below_N.sum():
        raise ValueError("the mean below a ratio must not be 0")
    cluster_N = _numbered(cluster)
    sums_C2 = np.stack([np.bincount(cluster_N, weights=v) for v in (above_N, below_N)], 1)
    sums_R2 = np.concatenate([drawn @ sums_C2 for drawn in _draws(len(sums_C2), seed, resamples)])
    known = sums_R2[:, 1] > 0
    ends = np.quantile(sums_R2[known, 0] / sums_R2[known, 1], [TAIL, 1 - TAIL])
    return _around(float(above_N.sum() / below_N.sum()), above_N, ends, len(sums_C2))


def paired_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of ``second - first`` over items that both models scored, in the same order."""
    one_N, other_N = np.asarray(first), np.asarray(second)
    difference_N = other_N.astype(float) - one_N
    interval = bootstrap_mean(difference_N, cluster, seed=seed, resamples=resamples)
    if one_N.dtype == bool and len(np.unique(np.asarray(cluster))) == 1:
        # A single image allows no conclusion about others.
        return Interval(interval.value, -1.0, 1.0, interval.count)
    return interval


def bootstrap_of_group_means(
    values: npt.ArrayLike,
    group: npt.ArrayLike,
    groups: Sequence[str],
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Unweighted mean of the means of groups; a resample leaves out groups it has no item of.

    Args:
        values: N values.
        group: N labels.
        groups: Labels of the groups that count.
        cluster: N labels; items of one are drawn together.
        seed: Seed of the resamples.
        resamples: Number of resamples.

    Raises:
        ValueError: There is no item of these groups.
    """
    number_of = {name: number for number, name in enumerate(groups)}
    number_N = np.array([number_of.get(name, -1) for name in np.asarray(group).tolist()])
    kept_N = number_N >= 0
    if not kept_N.any():
        raise ValueError(f"no item of the groups {', '.join(groups)}")
    kept, number_N = np.asarray(values)[kept_N], number_N[kept_N]
    value_N = kept.astype(float)
    cluster_N = _numbered(np.asarray(cluster)[kept_N])
    shape = (int(cluster_N.max()) + 1, len(groups))
    sums_CG, counts_CG = np.zeros(shape), np.zeros(shape)
    np.add.at(sums_CG, (cluster_N, number_N), value_N)
    np.add.at(counts_CG, (cluster_N, number_N), 1.0)
    means = [
        _means_of_groups(drawn_RC @ sums_CG, drawn_RC @ counts_CG)
        for drawn_RC in _draws(shape[0], seed, resamples)
    ]
    ends = np.quantile(np.concatenate(means), [TAIL, 1 - TAIL])
    value = float(_means_of_groups(sums_CG.sum(axis=0), counts_CG.sum(axis=0)))
    return _around(value, kept, ends, shape[0])


def bootstrap_auroc(
    score: npt.ArrayLike,
    label: npt.ArrayLike,
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Area under the ROC curve; a NaN score ranks on the wrong side of all others.

    Args:
        score: N scores.
        label: N booleans.
        cluster: N labels; items of one are drawn together.
        seed: Seed of the resamples.
        resamples: Number of resamples; those without true or false items are left out.

    Raises:
        ValueError: All items are true, or none is.
    """
    label_N = np.asarray(label, dtype=bool)
    wrong_side_N = np.where(label_N, -np.inf, np.inf)
    score_N = np.where(np.isnan(score), wrong_side_N, np.asarray(score))
    if label_N.all() or not label_N.any():
        raise ValueError("AUROC needs true and false items")
    cluster_N = _numbered(cluster)
    order = np.argsort(score_N, kind="stable")
    label_N, cluster_N = label_N[order], cluster_N[order]
    same = _numbered(score_N[order])
    starts = np.flatnonzero(np.concatenate([[True], same[1:] != same[:-1]]))
    areas = [
        _areas(drawn_RC[:, cluster_N], label_N, starts)
        for drawn_RC in _draws(int(cluster_N.max()) + 1, seed, resamples, len(label_N))
    ]
    known = np.concatenate(areas)
    ends = np.quantile(known[~np.isnan(known)], [TAIL, 1 - TAIL])
    value = float(_areas(np.ones((1, len(label_N))), label_N, starts)[0])
    return _around(value, score_N, ends, int(cluster_N.max()) + 1)


def _areas(weight_RN: np.ndarray, label_N: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """AUROC of each row of weights. Items are sorted by score; starts are those of equal scores."""
    true_RG = np.add.reduceat(weight_RN * label_N, starts, axis=1)
    false_RG = np.add.reduceat(weight_RN * ~label_N, starts, axis=1)
    below_RG = np.cumsum(false_RG, axis=1) - false_RG
    above_R = (true_RG * (below_RG + false_RG / 2)).sum(axis=1)
    pairs_R = true_RG.sum(axis=1) * false_RG.sum(axis=1)
    return np.divide(above_R, pairs_R, out=np.full_like(pairs_R, np.nan), where=pairs_R > 0)


def _means_of_groups(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the means of groups with items."""
    known = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=known)
    mean: np.ndarray = means.sum(axis=-1) / known.sum(axis=-1)
    return mean


def permutation_test(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    rounds: int = 10_000,
) -> float:
    """Two-sided p of the paired permutation test, which flips the signs of clusters' differences.

    Exact if there are at most ``rounds`` sign patterns, else from ``rounds`` drawn ones and the
    observed one. Signs of clusters with the same absolute difference are drawn at once, from a
    binomial distribution. Returns 1 if a value is NaN.

    Args:
        first: N values of one model.
        second: N values of the other, of the same items.
        cluster: N labels; items of one are flipped together.
        seed: Seed of the draws.
        rounds: Maximum number of sign patterns.
    """
    difference_N = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    label_N = _numbered(cluster)
    sum_C = np.bincount(label_N, weights=difference_N)
    sum_C = sum_C[sum_C != 0]
    observed, slack = abs(sum_C.sum()), 1e-9 * np.abs(sum_C).sum()
    if not len(sum_C):
        return 1.0
    if 2 ** min(len(sum_C), 60) <= rounds:
        sign_RC = 1.0 - 2 * (np.arange(2 ** len(sum_C))[:, None] >> np.arange(len(sum_C)) & 1)
        return float((~(np.abs(sign_RC @ sum_C) < observed - slack)).mean())
    size_K, count_K = np.unique(np.abs(sum_C), return_counts=True)
    random, reached, left = np.random.default_rng(seed), 0, rounds
    while left:
        rows = min(left, max(1, _DRAWS_AT_ONCE // len(size_K)))
        plus_RK = random.binomial(count_K, 0.5, size=(rows, len(size_K)))
        flipped_R = np.abs((2 * plus_RK - count_K) @ size_K)
        reached += int((~(flipped_R < observed - slack)).sum())
        left -= rows
    return (reached + 1) / (rounds + 1)


def judge(changes: Sequence[Change | None]) -> list[Judgement | None]:
    """Verdicts on the rows of one table; None where there is no change."""
    corrected = iter(holm([change.p for change in changes if change is not None]))
    return [change and Judgement(_verdict(change, p := next(corrected)), p) for change in changes]


def holm(p_values: Sequence[float]) -> list[float]:
    """p of several tests, corrected for their number (Holm)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, least = [0.0] * len(p_values), 0.0
    for tests_before, place in enumerate(order):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - tests_before)))
        corrected[place] = least
    return corrected


def probability(p: float) -> str:
    """``p < 0.001``, ``p = 0.180``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def legend(second: str, first: str) -> str:
    """Legend of the marks in a terminal, in lines."""
    text = f"{SIGN[BETTER]} better and {SIGN[WORSE]} worse in {second} than in {first} mark {RULE}."
    return textwrap.fill(text, _WIDTH)


def _verdict(change: Change, p: float) -> str:
    low, high = change.difference.low, change.difference.high
    if not (p < LEVEL and (low > 0 or high < 0)):
        return UNCLEAR
    return BETTER if (low > 0) != change.lower_is_better else WORSE


def _resampled_means(
    sums_CK: np.ndarray, size_C: np.ndarray, seed: int, resamples: int
) -> np.ndarray:
    """Means [resamples, K] over C clusters drawn with replacement."""
    blocks = [
        (drawn_RC @ sums_CK) / (drawn_RC @ size_C)[:, None]
        for drawn_RC in _draws(len(size_C), seed, resamples)
    ]
    return np.concatenate(blocks)


def _draws(clusters: int, seed: int, resamples: int, width: int = 1) -> Iterator[np.ndarray]:
    """Blocks of resamples, as counts of clusters; ``width``: cells the caller needs per
    resample."""
    random = np.random.default_rng(seed)
    rows_at_once = max(1, _DRAWS_AT_ONCE // max(clusters, width))
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        drawn = random.integers(clusters, size=(rows, clusters))
        drawn += np.arange(rows)[:, None] * clusters
        counts = np.bincount(drawn.reshape(-1), minlength=rows * clusters)
        yield counts.reshape(rows, clusters).astype(float)


def _numbered(label: npt.ArrayLike) -> np.ndarray:
    """Labels as numbers from 0, in sorted order."""
    numbers: np.ndarray = np.unique(np.asarray(label), return_inverse=True)[1].reshape(-1)
    return numbers


def _around(value: float, values_N: np.ndarray, ends: np.ndarray, clusters: int) -> Interval:
    """The interval from a bootstrap's ends; exact for fractions of 0 and 1."""
    low, high = float(ends[0]), float(ends[1])
    if values_N.dtype == bool and clusters == 1:  # allows no conclusion about other images
        low, high = 0.0, 1.0
    elif values_N.dtype == bool and values_N.all():
        low = TAIL ** (1 / clusters)
    elif values_N.dtype == bool and not values_N.any():
        high = 1 - TAIL ** (1 / clusters)
    # Rounding may put an end on the wrong side of the mean.
    return Interval(value, min(low, value), max(high, value), len(values_N))
