"""What a check found on one rank, and findings of all ranks as lines of a table. No torch."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class Grade(IntEnum):
    """How a finding is to be taken; the larger the worse."""

    OK = 0
    WARNING = 1
    FAILED = 2


class Finding(NamedTuple):
    """What one rank found."""

    check: str
    told: str
    grade: Grade = Grade.OK


class Line(NamedTuple):
    """A line of the table: what some ranks found alike."""

    check: str
    told: str
    grade: Grade
    ranks: tuple[int, ...]


def lines(found: Sequence[Sequence[Finding]]) -> list[Line]:
    """Findings of all ranks by check, what ranks found alike in one line.

    Args:
        found: By rank.
    """
    alike: dict[Finding, list[int]] = {}
    for rank, findings in enumerate(found):
        for finding in findings:
            alike.setdefault(finding, []).append(rank)
    checks = list(dict.fromkeys(finding.check for finding in alike))
    merged = [Line(*finding, tuple(ranks)) for finding, ranks in alike.items()]
    return sorted(merged, key=lambda line: (checks.index(line.check), line.ranks))


def table(merged: Sequence[Line], ranks: int) -> str:
    """For people: a mark, the check, who found it, and what."""
    marks = {Grade.OK: "ok", Grade.WARNING: "warning", Grade.FAILED: "FAILED"}
    who = [_named(line.ranks, ranks) for line in merged]
    widths = [max(len(line.check) for line in merged), max(map(len, who))]
    return "\n".join(
        f"{marks[line.grade]:8}{line.check:{widths[0]}}  {by:{widths[1]}}  {line.told}".rstrip()
        for line, by in zip(merged, who, strict=True)
    )


def _named(some: tuple[int, ...], ranks: int) -> str:
    if len(some) == ranks:
        return "all" if ranks > 1 else ""
    if len(some) > 4:
        return f"{len(some)} ranks, {some[0]} first"
    return f"rank{'s' * (len(some) > 1)} {', '.join(map(str, some))}"
