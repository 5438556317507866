"""Parse captions into claims: all readings of a whole caption.

The grammar is small and strict. It covers the output of wording.py and common paraphrases: 'There
is a star above the ring.', 'Above the ring is the star.', 'The hat is worn by a man.', 'A man wears
the hat.', 'A white horse near the building'. Articles and verbs must agree with their nouns. A
caption that does not match to its last word has no reading; callers decide about ambiguous ones.
"""

import re
from collections.abc import Iterator

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.nouns import NUMBER_WORDS, is_countable, is_plural
from hnc_ds.captions.language.wording import in_order, indefinite
from hnc_ds.captions.rewrite.words import PASSIVE, PRESENT, ImageWords, Words
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

LONGEST = 200
"""Maximum characters of a caption."""

MOST_ATTRIBUTES = 3
"""Maximum number of attributes before a noun."""

_WORD = r"[^\W_]+(?:['\-&][^\W_]+)*"
_CAPTION = re.compile(rf"{_WORD}(?:,? {_WORD})*\.?")
_WORDS = re.compile(rf"{_WORD}|,")

_Part = HasAttribute | Related
_Ended = Iterator[tuple[_Part, int]]
_NUMBERS = {word: number for number, word in enumerate(NUMBER_WORDS) if number}
_JOINTS: dict[Comparator, str] = {"more": "than", "fewer": "than", "as many": "as"}
"""Comparator -> the word before the second noun."""


def words_of(caption: str) -> Words | None:
    """The lowercase words; None if it has anything but words and commas, or is too long."""
    if len(caption) > LONGEST or not _CAPTION.fullmatch(caption):
        return None
    return tuple(_WORDS.findall(caption.lower()))


def readings(caption: str, known: ImageWords) -> tuple[Claim, ...]:
    """All distinct readings of a caption; none if it does not match the grammar."""
    words = words_of(caption)
    if words is None:
        return ()
    return tuple(dict.fromkeys(_Reader(words, known).captions()))


class _Noun:
    """A noun phrase of a caption."""

    __slots__ = ("article", "end", "many", "phrase")

    def __init__(self, phrase: Phrase, article: str, end: int) -> None:
        self.phrase, self.article, self.end = phrase, article, end
        self.many = is_plural(phrase.name)


class _Reader:
    """The grammar, one method per rule. A rule yields all readings of the words from a position.

    Args:
        words: Words of the caption.
        known: The vocabulary of the image.
    """

    def __init__(self, words: Words, known: ImageWords) -> None:
        self.words, self.known = words, known

    def captions(self) -> Iterator[Claim]:
        """Readings of the whole caption."""
        yield from self._existences()
        yield from self._numbers()
        yield from self._whole(self._statements(0))
        yield from self._whole(self._things(0))
        yield from self._whole(self._fronted(0))
        yield from self._joined()
        yield from self._of_one_thing()
        yield from self._negated()

    def _whole(self, found: _Ended) -> Iterator[_Part]:
        return (claim for claim, end in found if end == len(self.words))

    def _has(self, start: int, *words: str) -> bool:
        return self.words[start : start + len(words)] == words

    def _be(self, start: int, many: bool) -> bool:
        return self._has(start, "are" if many else "is")

    # Noun phrases

    def _nouns(self, start: int) -> Iterator[_Noun]:
        """'the large red star', 'a man', 'grass', 'some dogs', 'at least one cat', 'no cat'."""
        for article in (("the",), ("a",), ("an",), ("some",), ("no",), ("at", "least", "one"), ()):
            if not self._has(start, *article):
                continue
            first, name = start + len(article), " ".join(article)
            for phrase, end in self._described(first, ()):
                if self._fits(name, phrase.name, " ".join(self.words[first:end])):
                    definite = name == "the"
                    yield _Noun(Phrase(phrase.name, phrase.attributes, definite), name, end)

    def _described(self, start: int, before: tuple[str, ...]) -> Iterator[tuple[Phrase, int]]:
        for name, end in self.known.names(self.words, start):
            yield Phrase(name, in_order(before)), end
        if len(before) == MOST_ATTRIBUTES:
            return
        follows = start > 0 and before and self.words[start - 1] != ","
        for attribute, end in self.known.adjectives(self.words, start):
            if attribute in before or (follows and classes_of(f"{before[-1]} {attribute}")):
                continue  # 'dark brown' is one attribute
            comma = self._has(end, ",")
            yield from self._described(end + comma, (*before, attribute))

    @staticmethod
    def _fits(article: str, name: str, phrase: str) -> bool:
        phrase = phrase.replace(" ,", ",")
        match article:
            case "a" | "an" | "":
                return indefinite(phrase) == f"{article} {phrase}".strip()
            case "some":
                return is_plural(name) or not is_countable(name)
            case "at least one":
                return not is_plural(name)
        return True

    # Predicates

    def _rests(self, start: int, subject: Phrase) -> _Ended:
        """What follows 'is': 'red', 'near the house', 'worn by a man'."""
        for attribute, end in self.known.complements(self.words, start):
            if attribute not in subject.attributes:
                yield HasAttribute(subject, attribute), end
        yield from self._tails(start, subject)
        if self.words[start : start + 1] in (("located",), ("situated",), ("positioned",)):
            yield from self._relations(start + 1, subject)

    def _tails(self, start: int, subject: Phrase) -> _Ended:
        """What may also follow the noun: 'a man (wearing a hat)', 'a hat (worn by a man)'."""
        yield from self._relations(start, subject)
        for gerund, end in PASSIVE.at(self.words, start):
            if self.known.is_predicate(" ".join(self.words[start:end])):
                continue  # 'covered by' is a predicate of its own
            for by in self._ends(end):
                yield Related(by.phrase, gerund, subject), by.end

    def _relations(self, start: int, subject: Phrase) -> _Ended:
        for predicate, end in self.known.predicates(self.words, start):
            for found in self._ends(end):
                yield Related(subject, predicate, found.phrase), found.end

    def _ends(self, start: int) -> Iterator[_Noun]:
        """Noun phrases that can be the object of a relation."""
        return (n for n in self._nouns(start) if n.article not in ("no", "at least one"))

    def _verbs(self, start: int, many: bool) -> Iterator[str]:
        """'stands' -> 'standing'."""
        if start < len(self.words):
            gerund, of_many = PRESENT.get(self.words[start], ("", not many))
            if of_many == many:
                yield gerund

    def _actions(self, start: int, subject: Phrase, many: bool) -> _Ended:
        """'wears the hat', 'stands near the house'."""
        for gerund in self._verbs(start, many):
            put = _Reader((*self.words[:start], gerund, *self.words[start + 1 :]), self.known)
            yield from (
                (claim, end)
                for claim, end in put._relations(start, subject)
                if isinstance(claim, Related) and claim.predicate.split(" ")[0] == gerund
            )

    def _verb_phrases(self, start: int, subject: Phrase, many: bool) -> _Ended:
        if self._be(start, many):
            yield from self._rests(start + 1, subject)
        if self._has(start, "can", "be", "seen"):
            yield from self._relations(start + 3, subject)
        yield from self._actions(start, subject, many)

    # Captions

    def _statements(self, start: int, article: str | None = None) -> _Ended:
        """'The star is red.'; with ``article`` only if the subject has it."""
        for noun in self._nouns(start):
            if (noun.article == article) if article else (noun.article != "no"):
                yield from self._verb_phrases(noun.end, noun.phrase, noun.many)

    def _things(self, start: int, article: str | None = None, many: bool | None = None) -> _Ended:
        """'a red star', 'a star that is red', 'a star above the ring'.

        Args:
            start: Index of the first word.
            article: The required article, if any.
            many: Whether 'are' or 'is' precedes it, if one does.
        """
        for noun in self._nouns(start):
            if noun.article != (article or noun.article) or noun.article in ("the",):
                continue
            if (article is None and noun.article == "no") or many not in (None, noun.many):
                continue
            phrase, end = noun.phrase, noun.end
            if phrase.attributes:
                *others, last = phrase.attributes
                bare = Phrase(phrase.name, tuple(others), phrase.definite)
                yield HasAttribute(bare, last), end
            yield from self._tails(end, phrase)
            if self.words[end : end + 1] in (("that",), ("which",), ("who",)):
                yield from self._verb_phrases(end + 1, phrase, noun.many)

    def _fronted(self, start: int) -> _Ended:
        """'Above the ring is a star.', 'Near the house stands a horse.'"""
        for predicate, place_end in self.known.predicates(self.words, start):
            for place in self._ends(place_end):
                after = place.end + self._has(place.end, ",")
                if self._has(after, "there"):
                    after += 1
                for subject in self._ends(after + 1):
                    if self._be(after, subject.many):
                        yield Related(subject.phrase, predicate, place.phrase), subject.end
                    for gerund in self._verbs(after, subject.many):
                        verb = f"{gerund} {predicate}"
                        if self.known.is_predicate(verb):
                            yield Related(subject.phrase, verb, place.phrase), subject.end

    def _existences(self) -> Iterator[Claim]:
        """'There is ...' one thing, both or either of two, or no thing."""
        for many in (False, True):
            if not (self._has(0, "there") and self._be(1, many)):
                continue
            yield from self._whole(self._things(2, many=many))
            yield from map(Not, self._whole(self._things(2, "no", many)))
            for word, joint in (("both", "and"), ("either", "or"), ("", "and")):
                start = 2 + bool(word)
                if word and not self._has(2, word):
                    continue
                for first, second in self._two(self._things(start, many=many), joint):
                    yield Either(first, second) if word == "either" else Both(first, second)

    def _two(self, firsts: _Ended, joint: str) -> Iterator[tuple[_Part, _Part]]:
        """Two things joined by a word."""
        for first, end in firsts:
            if self._has(end, joint):
                for second in self._whole(self._things(end + 1)):
                    yield first, second

    def _numbers(self) -> Iterator[Claim]:
        """'There are two stars.', 'There are more stars than rings.'"""
        if not self._has(0, "there"):
            return
        start = 2 + (self._has(2, "exactly") or self._has(2, "only"))
        number = _NUMBERS.get(self.words[start]) if start < len(self.words) else None
        if number and self._be(1, number > 1):
            for (name, many), end in self.known.counted_names(self.words, start + 1):
                if end == len(self.words) and many == (number > 1):
                    yield Counted(name, number)
        if self._be(1, True):
            yield from self._comparisons()

    def _comparisons(self) -> Iterator[Claim]:
        for comparator, joint in _JOINTS.items():
            comparing = comparator.split(" ")
            first = 2 + len(comparing)
            if not self._has(2, *comparing):
                continue
            for (name, many), end in self.known.counted_names(self.words, first):
                if not (many and self._has(end, joint)):
                    continue
                for (other, others), last in self.known.counted_names(self.words, end + 1):
                    if others and last == len(self.words) and name != other:
                        yield Compared(name, comparator, other)

    def _joined(self) -> Iterator[Claim]:
        """'The star is red and a ring is blue.', 'Either the star is red or the ring is blue.'"""
        either = self._has(0, "either")
        for first, end in self._statements(int(either)):
            comma = self._has(end, ",")
            if self._has(end + comma, "or" if either else "and"):
                for second in self._whole(self._statements(end + comma + 1)):
                    yield Either(first, second) if either else Both(first, second)

    def _of_one_thing(self) -> Iterator[Claim]:
        """'The box is (both) above the ring and on the mat.', '... above either the ring or the
        mat.' Only with 'the': with 'a box' the two claims could be about two boxes."""
        for noun in self._nouns(0):
            if noun.article != "the" or not self._be(noun.end, noun.many):
                continue
            start, subject = noun.end + 1, noun.phrase
            for word, joint in (("both", "and"), ("either", "or"), ("", "and")):
                if word and not self._has(start, word):
                    continue
                for first, end in self._rests(start + bool(word), subject):
                    if self._has(end, joint):
                        for second in self._whole(self._rests(end + 1, subject)):
                            yield Either(first, second) if word == "either" else Both(first, second)
            for predicate, end in self.known.predicates(self.words, start):
                if self._has(end, "either"):
                    yield from self._either_end(subject, predicate, end + 1)

    def _either_end(self, subject: Phrase, predicate: str, start: int) -> Iterator[Claim]:
        for one in self._ends(start):
            if self._has(one.end, "or"):
                for other in self._ends(one.end + 1):
                    if other.end == len(self.words):
                        yield Either(
                            Related(subject, predicate, one.phrase),
                            Related(subject, predicate, other.phrase),
                        )

    def _negated(self) -> Iterator[Claim]:
        """'No star is red.', 'The star is not red.'"""
        yield from map(Not, self._whole(self._statements(0, "no")))
        for noun in self._nouns(0):
            negated = noun.article == "the" and self._be(noun.end, noun.many)
            if negated and self._has(noun.end + 1, "not"):
                yield from map(Not, self._whole(self._rests(noun.end + 2, noun.phrase)))
