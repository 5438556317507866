"""``hnc-ds inspect captions.jsonl.gz``: contents of a captions file.

Prints counts per type, and random groups of every negative type for a person to check that the
sentences are good English and that the false ones differ visibly.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from tqdm import tqdm

from hnc_ds.captions.caption_stats import read_counts, without_negatives
from hnc_ds.captions.coverage import Coverage, coverage_lines, coverage_of
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.records import ImageCaptions, Negative

SAMPLES = 10
"""Default number of groups per negative type."""

WIDTH = 100
"""Maximum number of columns."""

INDENT = 13
"""Columns of image id and mark before a caption."""

TRUE, FALSE, OPEN = "+", "-", "~"
"""Marks before a true, a false and an open-world caption."""


class Example(NamedTuple):
    """A caption group with its negatives of one type."""

    image_id: str
    positive: str
    negatives: tuple[Negative, ...]


@dataclass
class Contents:
    """Counts of a captions file and a uniform draw of its groups."""

    images: int = 0
    without: int = 0
    """Images without captions."""
    positives: Counter[str] = field(default_factory=Counter)
    """Positives per kind."""
    negatives: Counter[str] = field(default_factory=Counter)
    """Negatives per type."""
    plain: int = 0
    """Groups without negatives."""
    open_world: int = 0
    """Negatives that are not proven false."""
    groups: Counter[str] = field(default_factory=Counter)
    """Type -> groups with such a negative."""
    coverage: Coverage = field(default_factory=Coverage)
    """The coverage that is known without scene graphs."""
    examples: defaultdict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    """Type -> drawn groups."""


def inspect_captions(config: InspectConfig) -> None:
    """Print the counts of a captions file and samples of every negative type.

    Raises:
        UserError: Not a file of captions, or flags for shards.
    """
    if config.sheet or config.verify:
        raise UserError(
            f"{config.shards}: --sheet and --verify need shards; run 'hnc-ds pack' first"
        )
    path = Path(config.shards)
    images = tqdm(read_captions(path), desc="read", unit=" images", disable=None)
    contents = survey(images, config.samples or SAMPLES, config.seed)
    if not contents.images:
        raise UserError(f"{config.shards}: holds no images")
    covered = ["", *coverage_lines(_full_coverage(path, contents))]
    print("\n".join([*_counts(path, contents), *covered, *_samples(contents)]))


def _full_coverage(path: Path, contents: Contents) -> Coverage:
    """The coverage in OUT.stats.json, which ``generate`` computed with the scene graphs, if it
    belongs to these captions."""
    try:
        saved = read_counts(path)
    except (OSError, ValueError):  # absent, broken or of another version; msgspec's are ValueErrors
        return contents.coverage
    # Different counts show that the statistics are those of other captions.
    matches = saved.coverage.pairs == contents.coverage.pairs and saved.negatives == {
        name: contents.negatives.get(name, 0) for name in saved.negatives
    }
    return saved.coverage if matches else contents.coverage


def survey(images: Iterable[ImageCaptions], samples: int, seed: int) -> Contents:
    """Count captions and draw examples in one pass; only the examples are kept in memory.

    Args:
        images: The captions; iterated once.
        samples: Number of groups to draw per negative type.
        seed: Seed for the draw.
    """
    contents = Contents()
    streams: dict[str, random.Random] = {}
    for image in images:
        contents.images += 1
        contents.without += not image.groups
        contents.coverage.add(coverage_of(None, image))
        for group in image.groups:
            contents.positives[group.type] += 1
            contents.plain += not group.negatives
            of_type: dict[str, list[Negative]] = defaultdict(list)
            for negative in group.negatives:
                of_type[negative.type].append(negative)
                contents.open_world += negative.open_world
            for name, negatives in of_type.items():
                contents.negatives[name] += len(negatives)
                contents.groups[name] += 1
                place = _place(contents.groups[name], samples, streams, f"{seed}/{name}")
                if place is not None:
                    example = Example(image.image_id, group.positive, tuple(negatives))
                    contents.examples[name][place : place + 1] = [example]
    return contents


def _place(count: int, samples: int, streams: dict[str, random.Random], stream: str) -> int | None:
    """Index of the latest of ``count`` groups among the examples, if it is drawn.

    Source: Vitter 1985, algorithm R: every group is among the examples with equal probability.
    """
    if count <= samples:
        return count - 1
    place = streams.setdefault(stream, random.Random(stream)).randrange(count)
    return place if place < samples else None


def _counts(path: Path, contents: Contents) -> Iterator[str]:
    titled = {"true captions": contents.positives, "negatives": contents.negatives}
    without = f" ({contents.without:,} without captions)" if contents.without else ""
    unproven = f" ({contents.open_world:,} not proven false)" if contents.open_world else ""
    yield (
        f"{path}: {counted(contents.images, 'image')}{without}, "
        f"{counted(contents.positives.total(), 'group')}{without_negatives(contents.plain)}, "
        f"{counted(contents.negatives.total(), 'negative')}{unproven}"
    )
    wide = max(len(name) for title, counts in titled.items() for name in (title, *counts)) + 2
    yield f"  {'':{wide}}  {'captions':>12}  {'per image':>9}  {'share':>6}"
    for title, counts in titled.items():
        total = counts.total()
        yield f"  {title:{wide}}  {total:>12,}  {total / contents.images:>9.2f}"
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            yield (
                f"  {'  ' + name:{wide}}  {count:>12,}  {count / contents.images:>9.2f}  "
                f"{count / total:>6.1%}"
            )


def _samples(contents: Contents) -> Iterator[str]:
    for name in sorted(contents.examples):
        drawn = contents.examples[name]
        yield ""
        yield f"{name}: {len(drawn):,} of {contents.groups[name]:,} groups"
        for example in drawn:
            yield from _shown(example)
    if contents.examples:
        unproven = f", {OPEN} not proven false" if contents.open_world else ""
        yield ""
        yield f"{TRUE} true, {FALSE} false{unproven}; in brackets the replaced words"


def _shown(example: Example) -> Iterator[str]:
    yield from _wrapped(f"{example.image_id:>{INDENT - 3}} {TRUE} ", example.positive)
    longest = max(len(negative.caption) for negative in example.negatives)
    for negative in example.negatives:
        start = f"{OPEN if negative.open_world else FALSE} ".rjust(INDENT)
        replaced = f"[{' -> '.join(negative.replaced)}]" if negative.replaced else ""
        if INDENT + longest + 2 + len(replaced) <= WIDTH:
            yield f"{start}{negative.caption:{longest}}  {replaced}".rstrip()
        else:
            yield from _wrapped(start, negative.caption)
            yield from _wrapped(" " * INDENT, replaced)


def _wrapped(start: str, text: str) -> list[str]:
    """The text after its start, wrapped and indented."""
    return wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * INDENT)
