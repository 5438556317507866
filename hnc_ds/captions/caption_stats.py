"""What a captions file holds: OUT.stats.json, and the line on the terminal."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hnc_ds.captions.coverage import Coverage, coverage_lines
from hnc_ds.errors import counted

if TYPE_CHECKING:
    from hnc_ds.captions.audit import Audit


class Counts(msgspec.Struct):
    """What was made of some images."""

    images: int = 0
    images_without_captions: int = 0
    groups: dict[str, int] = {}
    """Per kind of positive."""
    negatives: dict[str, int] = {}
    """Per type."""
    irregular: dict[str, int] = {}
    """What the input held that had to be dropped or mended, per reason."""
    coverage: Coverage = msgspec.field(default_factory=Coverage)
    """How many pairs an image has, what they are about, and what limits them."""

    def add(self, other: "Counts") -> None:
        """Add the counts of further images."""
        self.images += other.images
        self.images_without_captions += other.images_without_captions
        self.groups = dict(Counter(self.groups) + Counter(other.groups))
        self.negatives = dict(Counter(self.negatives) + Counter(other.negatives))
        self.irregular = dict(Counter(self.irregular) + Counter(other.irregular))
        self.coverage.add(other.coverage)


def stats_path_of(out: Path) -> Path:
    """train.captions.jsonl.gz -> train.captions.stats.json"""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".stats.json")


def read_counts(out: Path) -> Counts:
    """The counts in the statistics file of captions that are whole."""
    counts = msgspec.json.decode(stats_path_of(out).read_bytes(), type=Counts)
    counts.groups.pop("all", None)
    return counts


def stats_json(
    settings: Any, types: tuple[str, ...], counts: Counts, audit: "Audit | None" = None
) -> bytes:
    """The statistics file."""
    groups = {"all": sum(counts.groups.values()), **dict(sorted(counts.groups.items()))}
    content = {
        "settings": settings,
        "images": counts.images,
        "images_without_captions": counts.images_without_captions,
        "groups": groups,
        "negatives": {name: counts.negatives.get(name, 0) for name in _all(types, counts)},
        "irregular": dict(sorted(counts.irregular.items())),
        "coverage": counts.coverage.in_order(),
        **({"audit": audit} if audit else {}),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _all(types: tuple[str, ...], counts: Counts) -> tuple[str, ...]:
    """Those that were to be made, and others that the input had."""
    return *types, *sorted(set(counts.negatives) - set(types))


def summary(out: Path, types: tuple[str, ...], counts: Counts) -> str:
    """What a person wants to know when it is done."""
    negatives = ", ".join(
        f"{name} {counts.negatives.get(name, 0):,}" for name in _all(types, counts)
    )
    met = sorted(counts.irregular.items())
    irregular = ", ".join(f"{number:,} {reason}" for reason, number in met)
    told = f"; met {irregular}" if irregular else ""
    first = (
        f"{out}: {counted(counts.images, 'image')}, "
        f"{counted(sum(counts.groups.values()), 'caption group')}; "
        f"negatives: {negatives}{told}"
    )
    return "\n".join([first, *coverage_lines(counts.coverage, types)])
