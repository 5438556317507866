"""What 'hnc-ds evaluate' prints: at most 25 lines a benchmark, or every score."""

from pathlib import Path

import pytest

from hnc_ds.evaluation.printed import MOST_LINES, models_table, results_table
from hnc_ds.evaluation.results import Coverage, ItemsHeader, write_results
from hnc_ds.records import Result

PAIRS = ("pair_accuracy", "margin", "blind_accuracy", "sighted_accuracy", "ties")
HEADER = ItemsHeader(
    "m",
    "shards",
    images=2,
    captions=3,
    sets={"sugarcrepe": Coverage(90, 9, 9, "", lost={"a": 10}, missing=("coco/1.jpg",))},
)


def row(benchmark: str, metric: str, group: str, count: int = 60) -> Result:
    return Result("m", benchmark, 1, metric, group, 0.5, 0.4, 0.6, count)


def of_shards(types: int, predicates: int = 0) -> list[Result]:
    groups = ["all", *(f"type_{n}" for n in range(types))]
    rows = [row("hnc-shards", metric, group) for group in groups for metric in PAIRS]
    named = [f"predicate: p{n}" for n in range(predicates)]
    return [*rows, *(row("hnc-shards", "pair_accuracy", group) for group in named)]


def of_set(categories: int, *metrics: str) -> list[Result]:
    groups = ["all", *(f"category_{n}" for n in range(categories))]
    return [row("sugarcrepe", metric, group) for metric in metrics for group in groups]


def block(printed: str, head: str) -> list[str]:
    """The lines of a benchmark, up to the next one."""
    lines = printed.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(head))
    heads = ("hard negatives", "retrieval ", "SugarCrepe")
    later = [n for n, line in enumerate(lines) if n > first and line.startswith(heads)]
    return lines[first : later[0] - 1 if later else None]


def test_a_benchmark_that_fits_is_printed_whole_and_nothing_is_left_out():
    printed = results_table(
        [*of_shards(5), row("retrieval", "image_to_text_R@1", "all")], HEADER, ""
    )
    assert "further" not in printed
    assert len(block(printed, "hard negatives")) == 1 + 6
    assert len(block(printed, "retrieval")) == 2 + 2  # a blank line and the remark on ties


def test_of_a_long_benchmark_25_lines_are_printed_with_the_number_left_out_and_their_place():
    results = [*of_shards(17, predicates=20), *of_set(40, "accuracy", "itt")]
    printed = results_table(results, HEADER, "results/val.json")
    lines = block(printed, "hard negatives")
    left = [n for n, line in enumerate(lines) if "further" in line]
    assert left == [MOST_LINES - 1]
    # Types with all, a blank line, a heading and 24 - 21 of the predicates.
    assert lines[left[0]] == "17 further scores are in results/val.json; --all prints them"
    assert [line.split()[0] for line in lines[21:24]] == ["p0", "p1", "p2"]
    lines = block(printed, "SugarCrepe")
    assert len(lines) <= MOST_LINES
    assert "10 of 100 questions are left out (10.0%)" in "\n".join(lines)
    assert "80 further scores are in results/val.json; --all prints them" in lines


def test_a_heading_without_its_rows_is_not_printed():
    printed = results_table(of_shards(20, predicates=12), HEADER, "x.json")
    lines = block(printed, "hard negatives")
    assert lines[21].startswith("type_19")
    assert lines[22] == "12 further scores are in x.json; --all prints them"


def test_all_prints_every_score():
    results = [*of_shards(17, predicates=45), *of_set(40, "accuracy", "itt", "ties")]
    results += [row("hnc-shards", "pair_accuracy", f"fog {n}") for n in range(1, 6)]
    printed = results_table(results, HEADER, "x.json", is_whole=True)
    assert "further scores are" not in printed
    words = {line.split("  ")[0] for line in printed.splitlines()}
    assert {f"p{n}" for n in range(12)} | {"fog"} <= words
    assert {f"pair_accuracy, predicate: p{n}" for n in range(12, 45)} <= words
    assert {f"ties, type_{n}" for n in range(17)} <= words
    for metric in ("accuracy", "itt", "ties"):
        assert {f"{metric}, category_{n}" for n in range(40)} <= words


@pytest.mark.parametrize("is_whole", [False, True])
def test_several_models_have_the_same_limit(tmp_path: Path, is_whole: bool):
    files = {}
    for name in ("a", "b"):
        files[name] = tmp_path / f"{name}.json"
        results = [*of_shards(5), *of_set(23, "accuracy", "itt_p1")]
        write_results(files[name], results, ItemsHeader(model=name), ())
    lines = models_table(files, 0, is_whole).splitlines()
    title = next(n for n, line in enumerate(lines) if line.startswith("SugarCrepe"))
    own = lines[title : lines.index("", title)]
    if is_whole:
        assert len(own) == 1 + 48
        assert sum(line.lstrip().startswith("margin") for line in lines) == 6
        assert "0.500 (0.400 to 0.600)" in next(x for x in lines if x.startswith("  margin"))
        return
    assert len(own) == MOST_LINES
    names = [line.split("  ")[1] for line in own[1:4]]
    assert names == ["accuracy", "itt_p1", "accuracy, category_0"]
    assert own[-1] == "25 further scores are in the results files; --all prints them"
