"""Captions of scene graphs back from their text to claims, ours and those of other generators.

The words decide, not what a file says beside them. Names are those of the image first, then all
that the reader knows; a caption that no template fits is unread, which is counted by who asks.
"""

import re
from collections.abc import Iterable, Iterator

from hnc_ds.captions.language.nouns import NUMBER_WORDS, singular
from hnc_ds.captions.truth.claims import (
    Both,
    Claim,
    Comparator,
    Compared,
    Counted,
    Either,
    HasAttribute,
    Not,
    Phrase,
    Related,
)

_ARTICLE = re.compile(r"^(?:the|an?|some|another|other) ")
_VERB = re.compile(r" (?:is|are) ")
_THERE = re.compile(r"there (?:is|are) (.+)")
_COMPARISON = re.compile(r"(as many|more|fewer) (.+?) (?:as|than) (.+)")
_SOME = re.compile(r"(at least one|some|no) (.+?) that (?:is|are) (.+)")
_AS_NOUNS = {"wooden": "wood", "woolen": "wool", "long-sleeved": "long sleeved"}
_AS_NOUNS["short-sleeved"] = "short sleeved"
_NUMBERS = {
    word: number
    for number, word in enumerate(
        (*NUMBER_WORDS, "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")
    )
    if word
}

_Simple = HasAttribute | Related


class CaptionReader:
    """Reads captions with a vocabulary.

    Args:
        names: Of objects, in lower case.
        attributes: All values.
        predicates: All relations.
    """

    def __init__(
        self, names: Iterable[str], attributes: Iterable[str], predicates: Iterable[str]
    ) -> None:
        self._known = frozenset(names)
        self._attributes = frozenset(attributes)
        self._predicates = frozenset(predicates)

    def claim_of(self, caption: str, names: frozenset[str]) -> Claim | None:
        """What a caption claims; None if it fits no template.

        Args:
            caption: In English.
            names: Of the image's objects: 'stop sign' may be two words of another image.
        """
        return _Reading(names, self._known, self._attributes, self._predicates).claim(
            " ".join(caption.lower().rstrip(". ").split())
        )


class _Reading:
    """Of one caption."""

    def __init__(
        self,
        names: frozenset[str],
        known: frozenset[str],
        attributes: frozenset[str],
        predicates: frozenset[str],
    ) -> None:
        self.names, self.known = names, known
        self.attributes, self.predicates = attributes, predicates

    def claim(self, text: str) -> Claim | None:
        there = _THERE.fullmatch(text)
        if there is None:
            return self.clauses(text) or self.about_subject(text)
        rest = there[1]
        if rest.startswith(("both ", "either ")):
            return self.pair_of_things(rest)
        if some := _SOME.fullmatch(rest):
            subject = self.phrase(some[2])
            said = None if subject is None else self.said_of(subject, some[3])
            return Not(said) if said is not None and some[1] == "no" else said
        if compared := _COMPARISON.fullmatch(rest):
            comparators: dict[str, Comparator] = {"more": "more", "fewer": "fewer"}
            comparator = comparators.get(compared[1], "as many")
            return Compared(singular(compared[2]), comparator, singular(compared[3]))
        number, _, name = rest.partition(" ")
        return self.counted(_NUMBERS[number], name) if number in _NUMBERS else None

    def counted(self, number: int, words: str) -> Claim:
        """'two dogs', 'two black dogs'"""
        parts = words.split(" ")
        for names in (self.names, self.known):
            for place in range(len(parts)):
                name = singular(" ".join(parts[place:]))
                if name in names:
                    attributes = self.values(" ".join(parts[:place])) if place else ()
                    if attributes is not None:
                        return Counted(name, number, attributes)
        return Counted(singular(words), number)

    def clauses(self, text: str) -> Claim | None:
        """'the star is red and the ring is blue', 'either the star is red or ...'"""
        joint, join = (" or ", Either) if text.startswith("either ") else (" and ", Both)
        for one, other in _splits(text.removeprefix("either "), joint):
            first, second = self.about_subject(one), self.about_subject(other)
            if isinstance(first, _Simple) and isinstance(second, _Simple):
                return join(first, second, True)
        return None

    def about_subject(self, text: str) -> Claim | None:
        """'The star is ...'"""
        for verb in _VERB.finditer(text):
            subject = self.phrase(text[: verb.start()])
            if subject is None:
                continue
            rest = text[verb.end() :]
            for word, joint, join in (("both ", " and ", Both), ("either ", " or ", Either)):
                if rest.startswith(word):
                    for one, other in _splits(rest.removeprefix(word), joint):
                        first, second = self.said_of(subject, one), self.said_of(subject, other)
                        if first is not None and second is not None:
                            return join(first, second)
            predicate, either, ends = rest.partition(" either ")
            if either and predicate in self.predicates:
                return self.either_object(subject, predicate, ends)
            return self.said_of(subject, rest)
        return None

    def either_object(self, subject: Phrase, predicate: str, ends: str) -> Claim | None:
        for one, other in _splits(ends, " or "):
            first, second = self.phrase(one), self.phrase(other)
            if first is not None and second is not None:
                return Either(
                    Related(subject, predicate, first), Related(subject, predicate, second)
                )
        return None

    def pair_of_things(self, text: str) -> Claim | None:
        """'both a red star and a ring above the box'"""
        join, joint = (Both, " and ") if text.startswith("both ") else (Either, " or ")
        for one, other in _splits(text.partition(" ")[2], joint):
            second = self.thing(other)
            if second is None:
                continue
            first = self.thing(one)
            if first is None and isinstance(second, HasAttribute):
                first = self.of_same_name(one, second.subject.name)
            if first is None and isinstance(second, Related):
                bare = self.phrase(one)  # 'both a man and a woman on the bench'
                if bare is not None:
                    first = Related(bare, second.predicate, second.object)
            if first is not None:
                return join(first, second)
        return None

    def of_same_name(self, words: str, name: str) -> _Simple | None:
        """'both a white and a black star'"""
        attributes = self.values(_ARTICLE.sub("", words, count=1))
        return HasAttribute(Phrase(name, attributes[1:]), attributes[0]) if attributes else None

    def thing(self, words: str) -> _Simple | None:
        """'a red star', 'a star above the ring'; None for 'a star', which claims nothing."""
        whole = self.phrase(words)
        if whole is not None and whole.attributes:
            return HasAttribute(Phrase(whole.name, whole.attributes[1:]), whole.attributes[0])
        if whole is not None:
            return None
        parts = words.split(" ")
        for place in range(1, len(parts)):
            subject = self.phrase(" ".join(parts[:place]))
            said = None if subject is None else self.related(subject, " ".join(parts[place:]))
            if said is not None:
                return said
        return None

    def said_of(self, subject: Phrase, words: str) -> _Simple | None:
        found = self.related(subject, words)
        if found is not None:
            return found
        value = self.value(words.removeprefix("made of "))
        return None if value is None else HasAttribute(subject, value)

    def related(self, subject: Phrase, words: str) -> Related | None:
        parts = words.split(" ")
        for place in range(len(parts) - 1, 0, -1):
            predicate = " ".join(parts[:place])
            rest = " ".join(parts[place:])
            if predicate in self.predicates and _ARTICLE.match(rest):
                object_ = self.phrase(rest)
                if object_ is not None:
                    return Related(subject, predicate, object_)
        return None

    def phrase(self, words: str) -> Phrase | None:
        """'the large red star': attributes before the longest name at its end."""
        parts = _ARTICLE.sub("", words, count=1).split(" ")
        for names in (self.names, self.known):
            for place in range(len(parts)):
                name = " ".join(parts[place:])
                if name in names:
                    attributes = self.values(" ".join(parts[:place])) if place else ()
                    if attributes is not None:
                        return Phrase(name, attributes)
        return None

    def values(self, words: str) -> tuple[str, ...] | None:
        """Words cut into attributes, the longest first; None if they cannot be."""
        parts = words.split(" ")
        for place in range(len(parts), 0, -1):
            value = self.value(" ".join(parts[:place]))
            rest = self.values(" ".join(parts[place:])) if value and place < len(parts) else ()
            if value is not None and rest is not None:
                return value, *rest
        return None

    def value(self, words: str) -> str | None:
        words = _AS_NOUNS.get(words, words)
        return words if words in self.attributes else None


def _splits(words: str, joint: str) -> Iterator[tuple[str, str]]:
    """Every way to cut words in two at a joint."""
    parts = words.split(joint)
    for place in range(1, len(parts)):
        yield joint.join(parts[:place]), joint.join(parts[place:])
