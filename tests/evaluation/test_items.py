"""Results and items are read back as written, and anything else is refused in one line."""

import json
import re
from pathlib import Path

import pytest

from hnc_ds.errors import UserError
from hnc_ds.evaluation.results import (
    ItemsHeader,
    PairItem,
    RankItem,
    items_path,
    read_items,
    read_results,
    write_results,
)
from hnc_ds.records import Result

ROW = Result("m", "hnc-shards", 1, "pair_accuracy", "all", 0.5, 0.25, 0.75, 4)
HEADER = ItemsHeader("m", "../shards", "f00", images=2, captions=3)
PAIR = PairItem(0, "a", "attribute", "swap", "a <b>", "b", 0.25, 0.5)
RANKS = RankItem(1, "b", "text", 0, 3)


def test_results_and_items_come_back_as_written(tmp_path):
    out = tmp_path / "new" / "val.v2.json"
    write_results(out, [ROW], HEADER, [PAIR, RANKS])
    assert read_results(out) == [ROW]
    assert read_items(items_path(out)) == (HEADER, [PAIR, RANKS])
    assert sorted(p.name for p in out.parent.iterdir()) == ["val.v2.items.jsonl", "val.v2.json"]


def test_a_results_file_is_a_list_of_flat_objects_with_the_documented_fields(tmp_path):
    write_results(tmp_path / "val.json", [ROW, ROW], HEADER, [])
    rows = json.loads((tmp_path / "val.json").read_text())
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    table = page.partition("| field | type | content |")[2].partition("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.splitlines()[2:]]
    documented = [name for first in firsts for name in re.findall(r"`(\w+)`", first)]
    assert [list(row) for row in rows] == [documented] * 2
    kinds = {kind for row in rows for kind in map(type, row.values())}
    assert kinds == {str, int, float}


def test_a_failure_half_way_leaves_the_old_files_and_nothing_else(tmp_path):
    out = tmp_path / "val.json"
    write_results(out, [ROW], HEADER, [PAIR])

    def items():
        yield RANKS
        raise OSError(28, "No space left on device")

    with pytest.raises(
        UserError, match=r"val\.json: cannot be written \(No space left on device\)"
    ):
        write_results(out, [], HEADER, items())
    assert read_results(out) == [ROW]
    assert read_items(items_path(out))[1] == [PAIR]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", ["{}", "[1]", "", '[{"model": "m"}]', "[" * 5])
def test_a_file_that_is_no_list_of_rows_is_refused_by_name(tmp_path, content):
    path = tmp_path / "val.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"val\.json: not a list of result rows"):
        read_results(path)


def test_a_torn_line_of_items_is_refused_with_its_number(tmp_path):
    out = tmp_path / "val.json"
    write_results(out, [ROW], HEADER, [PAIR, RANKS])
    path = items_path(out)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"val\.items\.jsonl:3: not an item"):
        read_items(path)


def test_items_of_another_format_are_refused(tmp_path):
    out = tmp_path / "val.json"
    write_results(out, [], ItemsHeader("m", "s", "f", 0, 0, format=2), [])
    with pytest.raises(UserError, match="written in format 2, this version reads 1"):
        read_items(items_path(out))
