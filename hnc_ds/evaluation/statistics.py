"""Means with honest intervals: the bootstrap over images. NumPy only, no torch.

Pairs of one image share its picture and often its words, so they do not count as independent
evidence: whole images are drawn anew, never single pairs. Source: the percentile interval and
the cluster bootstrap, Davison and Hinkley, "Bootstrap Methods and their Application", 1997.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
TAIL = 0.025
"""Probability beyond either end of a 95 % interval."""

_DRAWS_AT_ONCE = 4_000_000
"""Keeps a block of resamples near 64 MB whatever the number of images."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its 95 % interval, and how many values lie behind it."""

    value: float
    low: float
    high: float
    count: int


def bootstrap_means(
    columns: Mapping[str, npt.ArrayLike],
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Means of several columns over the same items, with intervals from the same resamples.

    Args:
        columns: Name to N values. A column of bool is a share: where all its values agree,
            resampling shows no spread at all, and the open end is the exact binomial one
            (Clopper and Pearson 1934) with the clusters as trials.
        cluster: N labels, numbers or strings; items of one label are drawn together.
        seed: Of the resamples.
        resamples: How many.

    Raises:
        ValueError: No items, or columns of different lengths.
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
        ValueError: No item, or the mean below is 0.
    """
    above_N, below_N = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if not below_N.sum():
        raise ValueError("a ratio needs a mean other than 0 below")
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
    """Mean of ``second - first`` over items that both models scored, in the same order.

    Much narrower than the gap between two intervals, because what makes an image hard for both
    cancels out.
    """
    one_N, other_N = np.asarray(first), np.asarray(second)
    difference_N = other_N.astype(float) - one_N
    found = bootstrap_mean(difference_N, cluster, seed=seed, resamples=resamples)
    if one_N.dtype == bool and len(np.unique(np.asarray(cluster))) == 1:
        return Interval(found.value, -1.0, 1.0, found.count)  # one image says nothing of others
    return found


def bootstrap_of_group_means(
    values: npt.ArrayLike,
    group: npt.ArrayLike,
    groups: Sequence[str],
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean over groups of their means, whatever their sizes, with its interval.

    A group of which a resample has no item is not in that resample's mean.

    Args:
        values: N values.
        group: N labels.
        groups: Those that count.
        cluster: N labels; items of one are drawn together.
        seed: Of the resamples.
        resamples: How many.

    Raises:
        ValueError: No item of these groups.
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
    """Area under the ROC curve: how often a true item scores above a false one; ties count half.

    Args:
        score: N scores.
        label: N booleans.
        cluster: N labels; items of one are drawn together.
        seed: Of the resamples.
        resamples: How many; those that lack true or false items are left out.

    Raises:
        ValueError: All items are true, or none is.

    A score that is NaN is on the wrong side of all others.
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
    """AUROC of each row of weights; items by ascending score, equal ones from each start on."""
    true_RG = np.add.reduceat(weight_RN * label_N, starts, axis=1)
    false_RG = np.add.reduceat(weight_RN * ~label_N, starts, axis=1)
    below_RG = np.cumsum(false_RG, axis=1) - false_RG
    above_R = (true_RG * (below_RG + false_RG / 2)).sum(axis=1)
    pairs_R = true_RG.sum(axis=1) * false_RG.sum(axis=1)
    return np.divide(above_R, pairs_R, out=np.full_like(pairs_R, np.nan), where=pairs_R > 0)


def _means_of_groups(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Over the last axis: means of the groups that have any items."""
    known = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=known)
    found: np.ndarray = means.sum(axis=-1) / known.sum(axis=-1)
    return found


def permutation_test(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    cluster: npt.ArrayLike,
    *,
    seed: int = 0,
    rounds: int = 10_000,
) -> float:
    """How likely so large a mean difference is if it is by chance which model gave which value: the
    two-sided p of flipping the signs of the clusters' differences together.

    All flips where there are no more than ``rounds`` of them, else ``rounds`` drawn ones and the
    one that was observed. Clusters of one size are drawn together, as their signs add up. 1 where a
    value is NaN, which no difference can be told from.

    Args:
        first: N values of one model.
        second: N values of the other, of the same items.
        cluster: N labels; items of one are flipped together.
        seed: Of the draws.
        rounds: Most flips.
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


def _resampled_means(
    sums_CK: np.ndarray, size_C: np.ndarray, seed: int, resamples: int
) -> np.ndarray:
    """Means [resamples, K] over as many clusters as there are, drawn with replacement."""
    blocks = [
        (drawn_RC @ sums_CK) / (drawn_RC @ size_C)[:, None]
        for drawn_RC in _draws(len(size_C), seed, resamples)
    ]
    return np.concatenate(blocks)


def _draws(clusters: int, seed: int, resamples: int, width: int = 1) -> Iterator[np.ndarray]:
    """Blocks of rows that say how often each cluster is in a resample; ``width``: cells that the
    caller makes of a row."""
    random = np.random.default_rng(seed)
    rows_at_once = max(1, _DRAWS_AT_ONCE // max(clusters, width))
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        drawn = random.integers(clusters, size=(rows, clusters))
        drawn += np.arange(rows)[:, None] * clusters
        counts = np.bincount(drawn.reshape(-1), minlength=rows * clusters)
        yield counts.reshape(rows, clusters).astype(float)


def _numbered(label: npt.ArrayLike) -> np.ndarray:
    """Labels as numbers from 0 on, in their order."""
    numbers: np.ndarray = np.unique(np.asarray(label), return_inverse=True)[1].reshape(-1)
    return numbers


def _around(value: float, values_N: np.ndarray, ends: np.ndarray, clusters: int) -> Interval:
    """The interval from a bootstrap's ends; of shares, open where resampling shows no spread."""
    low, high = float(ends[0]), float(ends[1])
    if values_N.dtype == bool and clusters == 1:  # one image says nothing of others
        low, high = 0.0, 1.0
    elif values_N.dtype == bool and values_N.all():
        low = TAIL ** (1 / clusters)
    elif values_N.dtype == bool and not values_N.any():
        high = 1 - TAIL ** (1 / clusters)
    # Sums in another order may put an end a rounding error on the wrong side of the mean.
    return Interval(value, min(low, value), max(high, value), len(values_N))
