"""Reword the captions of one image with a language model and verify the results by its graph.

One prompt rewords the true caption and a false caption of a chosen group; on request the model also
writes further false captions, which are reworded too. A rewording is kept if all its readings mean
the same as the original and the graph proves it true, or false. Each true rewording forms a group
with false ones, so both sides of every pair are in the model's words.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from hnc_ds.captions.rewrite.meaning import (
    about,
    change_between,
    is_proven_false,
    is_proven_true,
    is_sensible,
    objects,
    rewords,
)
from hnc_ds.captions.rewrite.parsing import readings, words_of
from hnc_ds.captions.rewrite.prompts import captions_in, contradict_prompt, reword_prompt
from hnc_ds.captions.rewrite.words import ImageWords
from hnc_ds.captions.truth.claims import Claim
from hnc_ds.captions.truth.indexed_graph import IndexedGraph
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, SceneGraph

SOURCE = "rewrite"
"""``CaptionGroup.source`` of the new groups."""

WRITTEN = "rewrite"
"""Type of negatives that the model writes; reworded ones keep their type."""

PAIRS = "pairs in the model's words"
UNREAD = "groups that are not read back or not proven"
WORDS = "captions of the model with words that its image's graph does not have"
FORM = "captions of the model of a form that is not read"
MEANING = "captions of the model that say something else"
PROOF = "captions of the model that the graph does not prove"
TWICE = "captions of the model that are there already"
CHANGE = "negatives of the model that change more than one thing, or nothing"
ALONE = "captions of the model without a counterpart"
"""Keys of counts in OUT.stats.json."""

Ask = Callable[[str, int], Awaitable[str]]
"""(prompt, number of captions) -> the model's answer."""


class Wanted(NamedTuple):
    """Numbers of captions to make for an image."""

    per_image: int
    """Groups to reword."""
    rewordings: int
    """Rewordings of each caption."""
    negatives: int
    """Negatives per group that the model writes."""
    seed: int


class _Caption(NamedTuple):
    """A caption with its claim."""

    caption: str
    claim: Claim
    is_true: bool


class _Chosen(NamedTuple):
    """A group to reword."""

    group: CaptionGroup
    positive: _Caption
    negative: _Caption
    of: Negative
    """Its record of ``negative``."""


async def reworded(
    captions: ImageCaptions, graph: SceneGraph, wanted: Wanted, ask: Ask, tally: Counter[str]
) -> ImageCaptions:
    """An image's captions, followed by those in the model's words.

    The result depends on the captions, the graph, the settings and the answers, not on the order in
    which answers arrive.

    Args:
        captions: Captions of the image.
        graph: The graph they were made from.
        wanted: Numbers of captions.
        ask: Queries the model.
        tally: Receives counts of what is kept and dropped, by the keys above.

    Raises:
        UserError: As ``ask``.
    """
    image = _Image(graph, ask, tally)
    rng = random.Random(f"{wanted.seed}/{graph.image_id}/rewrite")
    chosen = list(islice(image.provable(captions.groups, rng), wanted.per_image))
    found = await asyncio.gather(*(image.groups(one, wanted) for one in chosen))
    known = {text for group in captions.groups for text in _texts(group)}
    return replace(captions, groups=(*captions.groups, *image.new(found, known)))


def _texts(group: CaptionGroup) -> Iterator[str]:
    yield group.positive
    yield from (negative.caption for negative in group.negatives)


class _Image:
    """Reads and verifies captions of one image."""

    def __init__(self, graph: SceneGraph, ask: Ask, tally: Counter[str]) -> None:
        self.graph = IndexedGraph(graph)
        self.words = ImageWords(self.graph)
        self.names = sorted({obj.name for obj in graph.objects.values()})
        self.ask, self.tally = ask, tally

    def provable(self, groups: Iterable[CaptionGroup], rng: random.Random) -> Iterator[_Chosen]:
        """Groups in random order whose true caption and one false caption are proven."""
        order = [g for g in groups if not g.source and any(not n.open_world for n in g.negatives)]
        rng.shuffle(order)
        for group in order:
            positive = self._read(group.positive, True)
            negatives = [n for n in group.negatives if not n.open_world]
            rng.shuffle(negatives)
            read = ((n, self._read(n.caption, False)) for n in negatives)
            negative = next(((n, c) for n, c in read if c), None) if positive else None
            if positive is None or negative is None:
                self.tally[UNREAD] += 1
                continue
            yield _Chosen(group, positive, negative[1], negative[0])

    def _read(self, caption: str, is_true: bool) -> _Caption | None:
        claims = readings(caption, self.words)
        if not claims or not all(rewords(claim, claims[0]) for claim in claims):
            return None
        if not all(self._proves(claim, is_true) for claim in claims):
            return None
        return _Caption(caption, claims[0], is_true)

    def _proves(self, claim: Claim, is_true: bool) -> bool:
        return (is_proven_true if is_true else is_proven_false)(self.graph, claim)

    async def groups(self, chosen: _Chosen, wanted: Wanted) -> list[CaptionGroup]:
        """The new groups of a chosen group, one for each true rewording."""
        written = await self._written(chosen.positive, wanted.negatives)
        originals = (chosen.positive, chosen.negative, *written)
        true, *false = await asyncio.gather(
            *(self._rewordings(caption, wanted.rewordings) for caption in originals)
        )
        records = [replace(chosen.of, replaced=None), *map(self._record, written)]
        groups = []
        for number, positive in enumerate(true):
            negatives = tuple(
                replace(record, caption=captions[number])
                for record, captions in zip(records, false, strict=True)
                if number < len(captions)
            )
            groups.append(
                replace(chosen.group, positive=positive, negatives=negatives, source=SOURCE)
            )
        self.tally[ALONE] += sum(len(captions[len(true) :]) for captions in false)
        return groups

    async def _rewordings(self, original: _Caption, count: int) -> list[str]:
        """Rewordings with the same meaning and a proof by the graph."""
        answer = await self.ask(reword_prompt(original.caption, count), count)
        found: list[str] = []
        for caption in captions_in(answer, count):
            if len(found) == count:
                break
            claims = self._readings(caption)
            if not claims:
                continue
            if not all(rewords(claim, original.claim) for claim in claims):
                self.tally[MEANING] += 1
            elif not all(self._proves(claim, original.is_true) for claim in claims):
                self.tally[PROOF] += 1
            elif caption == original.caption or caption in found:
                self.tally[TWICE] += 1
            else:
                found.append(caption)
        return found

    async def _written(self, true: _Caption, count: int) -> list[_Caption]:
        """False captions that the model makes from a true one by one change."""
        if not count:
            return []
        answer = await self.ask(contradict_prompt(true.caption, self.names, count), count)
        found: list[_Caption] = []
        for caption in captions_in(answer, count):
            if len(found) == count:
                break
            claims = self._readings(caption)
            if not claims:
                continue
            changed = all(change_between(true.claim, claim) for claim in claims)
            if not changed or not all(map(is_sensible, claims)):
                self.tally[CHANGE] += 1
            elif not all(self._proves(claim, False) for claim in claims):
                self.tally[PROOF] += 1
            elif any(caption == other.caption for other in found):
                self.tally[TWICE] += 1
            else:
                found.append(_Caption(caption, claims[0], False))
        return found

    def _readings(self, caption: str) -> tuple[Claim, ...]:
        """All readings of a caption; counts the reason if there is none."""
        claims = readings(caption, self.words)
        if not claims:
            known = all(map(self.words.knows, words_of(caption) or ("",)))
            self.tally[FORM if known else WORDS] += 1
        return claims

    def _record(self, original: _Caption) -> Negative:
        named = objects(self.graph, original.claim)
        return Negative(original.caption, WRITTEN, objects=named, about=about(original.claim))

    def new(self, found: Iterable[list[CaptionGroup]], known: set[str]) -> Iterator[CaptionGroup]:
        """The groups without captions that exist already.

        Args:
            found: New groups of each chosen group.
            known: All captions of the image; new ones are added.
        """
        for group in (group for groups in found for group in groups):
            negatives = []
            if group.positive not in known:
                known.add(group.positive)
                for negative in group.negatives:
                    if negative.caption not in known:
                        known.add(negative.caption)
                        negatives.append(negative)
            self.tally[TWICE] += len(group.negatives) - len(negatives)
            if negatives:
                self.tally[PAIRS] += len(negatives)
                yield replace(group, negatives=tuple(negatives))
            else:
                self.tally[ALONE] += 1
