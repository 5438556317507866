"""What a file of captions holds: ``hnc-ds inspect captions.jsonl.gz``.

Prints counts per type, and random groups of every negative type for a human to read: whether a
sentence is good English, and whether the false one differs in a way that can be seen, no counter
tells.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from tqdm import tqdm

from hnc_ds.captions.caption_stats import read_counts
from hnc_ds.captions.coverage import Coverage, coverage_lines, coverage_of
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.records import ImageCaptions, Negative

SAMPLES = 10
"""Groups per negative type when no other number is asked for."""

WIDTH = 100
"""Columns of the terminal."""

INDENT = 13
"""Columns before a caption: image id and mark."""

TRUE, FALSE, OPEN = "+", "-", "~"
"""Marks before a true caption, a false one, and one that is not proven false."""


class Example(NamedTuple):
    """A group as it is shown for one negative type."""

    image_id: str
    positive: str
    negatives: tuple[Negative, ...]
    """Those of the type."""


@dataclass
class Contents:
    """Counts over a captions file, and a fair draw of its groups."""

    images: int = 0
    without: int = 0
    """Images that have no captions."""
    positives: Counter[str] = field(default_factory=Counter)
    """Per kind of statement."""
    negatives: Counter[str] = field(default_factory=Counter)
    """Per type."""
    open_world: int = 0
    """Negatives that are not proven false."""
    groups: Counter[str] = field(default_factory=Counter)
    """Groups with a negative of the type."""
    coverage: Coverage = field(default_factory=Coverage)
    """As far as captions show it without their scene graphs."""
    examples: defaultdict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    """Per type, drawn from all of these groups alike."""


def inspect_captions(config: InspectConfig) -> None:
    """Print the counts of a captions file and samples of every negative type.

    Raises:
        UserError: Not a file of captions, or flags that are of shards only.
    """
    if config.sheet or config.verify:
        raise UserError(
            f"{config.shards}: --sheet and --verify look into shards; pack the captions first"
        )
    path = Path(config.shards)
    images = tqdm(read_captions(path), desc="read", unit=" images", disable=None)
    contents = survey(images, config.samples or SAMPLES, config.seed)
    if not contents.images:
        raise UserError(f"{config.shards}: holds no images")
    coverage = _with_graphs(path, contents)
    covered = ["", *coverage_lines(coverage)]
    print("\n".join([*_counts(path, contents), *covered, *_samples(contents)]))


def _with_graphs(path: Path, contents: Contents) -> Coverage:
    """What ``generate`` counted with the scene graphs at hand, where OUT.stats.json has it."""
    try:
        told = read_counts(path)
    except (OSError, ValueError):  # msgspec's are ValueErrors; none, or of another version
        return contents.coverage
    theirs, ours = told.coverage, contents.coverage
    # Statistics of other captions under this name prove themselves by their counts.
    is_of_these = theirs.pairs == ours.pairs and told.negatives == {
        name: contents.negatives.get(name, 0) for name in told.negatives
    }
    return theirs if is_of_these else ours


def survey(images: Iterable[ImageCaptions], samples: int, seed: int) -> Contents:
    """Count captions and draw examples in one pass; memory holds the examples alone.

    Args:
        images: Are iterated once.
        samples: Groups to draw per negative type.
        seed: Same seed, same draw.
    """
    contents = Contents()
    streams: dict[str, random.Random] = {}
    for image in images:
        contents.images += 1
        contents.without += not image.groups
        contents.coverage.add(coverage_of(None, image))
        for group in image.groups:
            contents.positives[group.type] += 1
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


def _place(met: int, samples: int, streams: dict[str, random.Random], stream: str) -> int | None:
    """Where the group just met goes among the examples, if it is drawn.

    Source: Vitter 1985, algorithm R: every group met so far is among them with equal probability.
    """
    if met <= samples:
        return met - 1
    place = streams.setdefault(stream, random.Random(stream)).randrange(met)
    return place if place < samples else None


def _counts(path: Path, contents: Contents) -> Iterator[str]:
    titled = {"true captions": contents.positives, "negatives": contents.negatives}
    without = f" ({contents.without:,} without captions)" if contents.without else ""
    unproven = f" ({contents.open_world:,} not proven false)" if contents.open_world else ""
    yield (
        f"{path}: {counted(contents.images, 'image')}{without}, "
        f"{counted(contents.positives.total(), 'group')}, "
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
        yield f"{TRUE} true, {FALSE} false{unproven}; in brackets what was replaced"


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
    """The text after its start, in as many lines as it needs, one under the other."""
    return wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * INDENT)
