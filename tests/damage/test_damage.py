"""Damaged files of every kind that a stage reads: one line, no hang, no flood, no silent number."""

from collections.abc import Iterator

import pytest

from tests.damage.cases import Laboratory, cases, laboratory, table

QUICK, ALL, SEED = 30, 1600, 16


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    with laboratory() as made:
        yield made


def test_a_sample_of_damaged_files_ends_well(lab: Laboratory) -> None:
    """Of stages that take no seconds."""
    quick = [case for case in cases(lab.world, SEED, 4 * QUICK) if case.stage.share == 1][:QUICK]
    assert len(quick) == QUICK
    verdicts = [lab.judge(case) for case in quick]
    assert {one.verdict for one in verdicts} == {"ok"}, "\n".join(table(verdicts))


@pytest.mark.very_slow
def test_all_damaged_files_end_well(lab: Laboratory) -> None:
    """The whole of ``python -m tests.damage``: a quarter of an hour."""
    verdicts = [lab.judge(case) for case in cases(lab.world, SEED, ALL)]
    assert len(verdicts) == ALL
    assert {one.verdict for one in verdicts} == {"ok"}, "\n".join(table(verdicts))
