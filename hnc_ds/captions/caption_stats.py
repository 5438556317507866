"""Statistics of a captions file: OUT.stats.json, and the summary on the terminal."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hnc_ds.captions.coverage import Coverage, coverage_lines
from hnc_ds.errors import counted

if TYPE_CHECKING:
    from hnc_ds.captions.audit import Audit


class Counts(msgspec.Struct):
    """Counts of the captions of a set of images."""

    images: int = 0
    images_without_captions: int = 0
    groups: dict[str, int] = {}
    """Caption groups per kind of positive."""
    negatives: dict[str, int] = {}
    """Negatives per type."""
    irregular: dict[str, int] = {}
    """Number of dropped or repaired items of the input, per reason."""
    coverage: Coverage = msgspec.field(default_factory=Coverage)
    groups_without_negatives: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of further images."""
        self.images += other.images
        self.images_without_captions += other.images_without_captions
        self.groups = dict(Counter(self.groups) + Counter(other.groups))
        self.negatives = dict(Counter(self.negatives) + Counter(other.negatives))
        self.irregular = dict(Counter(self.irregular) + Counter(other.irregular))
        self.coverage.add(other.coverage)
        self.groups_without_negatives += other.groups_without_negatives


def stats_path_of(out: Path) -> Path:
    """train.captions.jsonl.gz -> train.captions.stats.json"""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".stats.json")


def read_counts(out: Path) -> Counts:
    """The counts in the statistics file of finished captions."""
    counts = msgspec.json.decode(stats_path_of(out).read_bytes(), type=Counts)
    counts.groups.pop("all", None)
    return counts


def stats_json(
    settings: Any, types: tuple[str, ...], counts: Counts, audit: "Audit | None" = None
) -> bytes:
    """The content of the statistics file."""
    plain = counts.groups_without_negatives
    groups = {"all": sum(counts.groups.values()), **dict(sorted(counts.groups.items()))}
    content = {
        "settings": settings,
        "images": counts.images,
        "images_without_captions": counts.images_without_captions,
        "groups": groups,
        "negatives": {name: counts.negatives.get(name, 0) for name in _all(types, counts)},
        "irregular": dict(sorted(counts.irregular.items())),
        "coverage": counts.coverage.in_order(),
        **({"groups_without_negatives": plain} if plain else {}),
        **({"audit": audit} if audit else {}),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _all(types: tuple[str, ...], counts: Counts) -> tuple[str, ...]:
    """The requested types, then other types of the input."""
    return *types, *sorted(set(counts.negatives) - set(types))


def without_negatives(groups: int) -> str:
    """' (1,234 without negatives)'; empty if there are none."""
    return f" ({groups:,} without negatives)" if groups else ""


def summary(out: Path, types: tuple[str, ...], counts: Counts) -> str:
    """The message at the end of a run."""
    negatives = ", ".join(
        f"{name} {counts.negatives.get(name, 0):,}" for name in _all(types, counts)
    )
    reasons = sorted(counts.irregular.items())
    irregular = ", ".join(f"{number:,} {reason}" for reason, number in reasons)
    first = (
        f"{out}: {counted(counts.images, 'image')}, "
        f"{counted(sum(counts.groups.values()), 'caption group')}"
        f"{without_negatives(counts.groups_without_negatives)}; "
        f"negatives: {negatives}{f'; dropped or repaired: {irregular}' if irregular else ''}"
    )
    return "\n".join([first, *coverage_lines(counts.coverage, types)])
