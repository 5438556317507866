"""Which mixing weights a sweep takes, and which of them scores best. No torch here.

    0:1:0.1        from 0 to 1 in steps of 0.1, both ends included: 11 points
    0,0.25,0.5     these

A share a is how much of the final weights is taken: 0 is the start model, 1 the final one. Shares
are decimal numbers, so that ten steps of 0.1 are exactly 1 and a point is called the same in every
sweep.
"""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from math import inf, isnan

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.benchmarks import BENCHMARKS, HEADLINE_SCORER, HEADLINES
from hnc_ds.evaluation.question_sets import described
from hnc_ds.evaluation.table import RowKey, key_of
from hnc_ds.records import Result

MOST_POINTS = 1001


def read_sweep(text: str) -> list[Decimal]:
    """The shares of ``FIRST:LAST:STEP`` or of a list with commas, ascending, each once.

    Raises:
        UserError: Neither of them, a share outside of 0 to 1, steps that do not end at LAST.
    """
    if ":" not in text:
        return sorted({read_share(part) for part in text.split(",")})
    parts = text.split(":")
    if len(parts) != 3:
        raise UserError(f"sweep {text}: write FIRST:LAST:STEP, such as 0:1:0.1, or a list 0,0.5,1")
    start, stop, step = (read_share(part) for part in parts)
    if step == 0 or stop < start:
        raise UserError(f"sweep {text}: LAST must not be below FIRST, nor STEP 0; write 0:1:0.1")
    steps, rest = divmod(stop - start, step)
    if rest:
        raise UserError(
            f"sweep {text}: steps of {step} from {start} do not end at {stop}; choose a STEP "
            "that does, or list the weights with commas"
        )
    if steps >= MOST_POINTS:
        raise UserError(f"sweep {text}: more than {MOST_POINTS} points; take a larger STEP")
    return [start + number * step for number in range(int(steps) + 1)]


def read_share(text: str) -> Decimal:
    """A decimal number from 0 to 1.

    Raises:
        UserError: Something else. Beyond the ends lie no mixtures: variances could be negative.
    """
    try:
        share = Decimal(text.strip())
    except InvalidOperation as error:
        raise UserError(f"mixing weight '{text}': not a number; write one such as 0.4") from error
    if not share.is_finite() or not 0 <= share <= 1:
        raise UserError(f"mixing weight {text}: must lie between 0 (START) and 1 (FINAL)")
    return share


def share_name(share: Decimal) -> str:
    """``0.0``, ``0.25``, ``1.0``: the shortest form with a decimal, alike in every sweep."""
    digits = f"{abs(share).normalize():f}"
    return digits if "." in digits else f"{digits}.0"


def check_metric(metric: str | None, benchmarks: Collection[str]) -> None:
    """Refuse, before any work, a metric of no chosen benchmark.

    Raises:
        UserError: It is not BENCHMARK/METRIC/GROUP with one of the benchmarks.
    """
    if metric is not None and metric.split("/")[0] not in benchmarks:
        known = ("/".join(key) for _, key in HEADLINES if key[0] in benchmarks)
        example = next(known, f"{next(iter(benchmarks), 'sugarcrepe')}/accuracy/all")
        raise UserError(
            f"metric '{metric}': write BENCHMARK/METRIC/GROUP, such as {example}, "
            f"with a benchmark that is measured: {', '.join(benchmarks)}"
        )


def best_point(points: Mapping[str, Sequence[Result]], metric: str | None) -> tuple[str, Result]:
    """Share and row of the highest value; of equal ones the nearest to the start.

    Args:
        points: Results by share, ascending.
        metric: BENCHMARK/METRIC/GROUP; the first headline when not given.

    Raises:
        UserError: No row is called so.
    """
    if metric is None:
        metric = "/".join(headlines(next(iter(points.values())))[0][1])
    found = [(share, row) for share, rows in points.items() for row in rows if _name(row) == metric]
    if not found:
        names = [_name(row) for row in next(iter(points.values()))]
        known = ", ".join(name for name in names if name.endswith("/all"))
        raise UserError(
            f"metric: there is no score '{metric}'{did_you_mean(metric, names)}; there are {known}"
        )
    return max(found, key=lambda point: -inf if isnan(point[1].value) else point[1].value)


def headlines(results: Sequence[Result]) -> list[tuple[str, RowKey]]:
    """Title and key of the scores by which models are told apart at a glance: those of shards, and
    of each other benchmark the one over all items that is first, or that papers report."""
    keys = list(map(key_of, results))
    found = [(title, key) for title, key in HEADLINES if key in keys]
    titled = set(BENCHMARKS)  # of shards
    for key in keys:
        is_first = HEADLINE_SCORER.get(key[0], key[1]) == key[1]
        if key[2] == "all" and is_first and key[0] not in titled:
            titled.add(key[0])
            found.append((_title(key), key))
    return found


def _title(key: RowKey) -> str:
    benchmark, metric, _ = key
    known = described(benchmark)
    title = known.title if known else benchmark
    return title if metric == "accuracy" else f"{title}, {metric}"


def _name(result: Result) -> str:
    return "/".join(key_of(result))
