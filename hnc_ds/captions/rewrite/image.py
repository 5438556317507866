"""One image: what the model writes about it becomes caption groups, as far as the graph proves it.

Of a drawn group the true caption and one false caption are reworded by the same prompt; where
wanted, the model writes further false captions, which are then reworded, too. A rewording is kept
if every way to read it says what its original says, and the graph proves it true, or false. Each
true rewording becomes a group of its own with false ones beside it, so that both sides of every
pair are in the model's words.
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
"""``CaptionGroup.source`` of what comes from here."""

WRITTEN = "rewrite"
"""Type of a negative that the model thought of; a reworded one keeps its type."""

PAIRS = "pairs in the model's words"
UNREAD = "groups that are not read back or not proven"
WORDS = "captions of the model with words that its image's graph does not have"
FORM = "captions of the model of a form that is not read"
MEANING = "captions of the model that say something else"
PROOF = "captions of the model that the graph does not prove"
TWICE = "captions of the model that are there already"
CHANGE = "negatives of the model that change more than one thing, or nothing"
ALONE = "captions of the model without a counterpart"
"""Reasons in OUT.stats.json, and what was kept."""

Ask = Callable[[str, int], Awaitable[str]]
"""(prompt, captions wanted) -> the model's answer."""


class Wanted(NamedTuple):
    """How much of an image is reworded."""

    per_image: int
    """Groups."""
    rewordings: int
    """Of each caption."""
    negatives: int
    """That the model thinks of, for a group."""
    seed: int


class _Said(NamedTuple):
    """A caption with what it claims."""

    caption: str
    claim: Claim
    is_true: bool


class _Chosen(NamedTuple):
    """A group that is reworded."""

    group: CaptionGroup
    positive: _Said
    negative: _Said
    of: Negative
    """The record of ``negative``."""


async def reworded(
    captions: ImageCaptions, graph: SceneGraph, wanted: Wanted, ask: Ask, tally: Counter[str]
) -> ImageCaptions:
    """An image's captions with those in the model's words behind them.

    What comes depends on the captions, the graph, the settings and the answers alone, not on the
    order in which answers come.

    Args:
        captions: Of the image.
        graph: That they were made from.
        wanted: How much.
        ask: Asks the model.
        tally: Grows by what was kept and dropped, by the reasons above.

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
    """What captions of one image are read and judged by."""

    def __init__(self, graph: SceneGraph, ask: Ask, tally: Counter[str]) -> None:
        self.graph = IndexedGraph(graph)
        self.words = ImageWords(self.graph)
        self.names = sorted({found.name for found in graph.objects.values()})
        self.ask, self.tally = ask, tally

    def provable(self, groups: Iterable[CaptionGroup], rng: random.Random) -> Iterator[_Chosen]:
        """Groups in drawn order of which the true caption and a false one are proven."""
        order = [g for g in groups if not g.source and any(not n.open_world for n in g.negatives)]
        rng.shuffle(order)
        for group in order:
            positive = self._read(group.positive, True)
            negatives = [n for n in group.negatives if not n.open_world]
            rng.shuffle(negatives)
            read = ((n, self._read(n.caption, False)) for n in negatives)
            found = next(((n, said) for n, said in read if said), None) if positive else None
            if positive is None or found is None:
                self.tally[UNREAD] += 1
                continue
            yield _Chosen(group, positive, found[1], found[0])

    def _read(self, caption: str, is_true: bool) -> _Said | None:
        claims = readings(caption, self.words)
        if not claims or not all(rewords(claim, claims[0]) for claim in claims):
            return None
        if not all(self._proves(claim, is_true) for claim in claims):
            return None
        return _Said(caption, claims[0], is_true)

    def _proves(self, claim: Claim, is_true: bool) -> bool:
        return (is_proven_true if is_true else is_proven_false)(self.graph, claim)

    async def groups(self, chosen: _Chosen, wanted: Wanted) -> list[CaptionGroup]:
        """The new groups of a chosen one; a true rewording each."""
        written = await self._written(chosen.positive, wanted.negatives)
        said = (chosen.positive, chosen.negative, *written)
        true, *false = await asyncio.gather(*(self._rewordings(s, wanted.rewordings) for s in said))
        of = [replace(chosen.of, replaced=None), *map(self._record, written)]
        found = []
        for place, positive in enumerate(true):
            negatives = tuple(
                replace(record, caption=captions[place])
                for record, captions in zip(of, false, strict=True)
                if place < len(captions)
            )
            found.append(
                replace(chosen.group, positive=positive, negatives=negatives, source=SOURCE)
            )
        self.tally[ALONE] += sum(len(captions[len(true) :]) for captions in false)
        return found

    async def _rewordings(self, said: _Said, count: int) -> list[str]:
        """Captions that say the same, and that the graph proves alike."""
        answer = await self.ask(reword_prompt(said.caption, count), count)
        found: list[str] = []
        for caption in captions_in(answer, count):
            if len(found) == count:
                break
            claims = self._readings(caption)
            if not claims:
                continue
            if not all(rewords(claim, said.claim) for claim in claims):
                self.tally[MEANING] += 1
            elif not all(self._proves(claim, said.is_true) for claim in claims):
                self.tally[PROOF] += 1
            elif caption == said.caption or caption in found:
                self.tally[TWICE] += 1
            else:
                found.append(caption)
        return found

    async def _written(self, true: _Said, count: int) -> list[_Said]:
        """False captions that the model makes of a true one by one change."""
        if not count:
            return []
        answer = await self.ask(contradict_prompt(true.caption, self.names, count), count)
        found: list[_Said] = []
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
                found.append(_Said(caption, claims[0], False))
        return found

    def _readings(self, caption: str) -> tuple[Claim, ...]:
        """All claims that a caption may make; counts why there is none."""
        claims = readings(caption, self.words)
        if not claims:
            known = all(map(self.words.knows, words_of(caption) or ("",)))
            self.tally[FORM if known else WORDS] += 1
        return claims

    def _record(self, said: _Said) -> Negative:
        named = objects(self.graph, said.claim)
        return Negative(said.caption, WRITTEN, objects=named, about=about(said.claim))

    def new(self, found: Iterable[list[CaptionGroup]], known: set[str]) -> Iterator[CaptionGroup]:
        """Those of the groups that say something new.

        Args:
            found: Of each chosen group.
            known: All captions of the image; grows.
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
