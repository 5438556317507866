"""Captions back from their text: a grammar of every template, with its own view of English.

A caption that no rule covers, that two rules cover, or whose articles or verbs are wrong is an
error. Claims are plain tuples; what they mean is judging.py's business. What words there are is
said by a vocabulary: the drawn worlds' own (``DRAWN``), or that of some graphs (by_graph.py).
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, TypeVar

from tests.captions.worlds.claims import (
    Both,
    Claim,
    Compare,
    Does,
    Either,
    Is,
    Not,
    Number,
    Parsed,
    Phrase,
    Simple,
)
from tests.captions.worlds.lexicon import (
    FORMS,
    MASS,
    NUMBERS,
    ONE_OF_A_SORT,
    PREDICATES,
    SOUNDS_LIKE_A,
    SPELLED,
    Form,
    plural,
)
from tests.captions.worlds.properties import ATTRIBUTES, MATERIALS, SAME_ATTRIBUTE

_Found = TypeVar("_Found")

AFTER_VERB = {"long-sleeved": "long sleeved", "short-sleeved": "short sleeved"}
"""Attributes that are written in another way than they are annotated."""


class Vocabulary(NamedTuple):
    """The words that captions may be made of."""

    forms: dict[str, Form]
    """Written name, in small letters -> its singular and number."""
    predicates: frozenset[str]
    attributes: frozenset[str]
    materials: frozenset[str]
    """Attributes that are written as 'made of wood'."""
    same: dict[str, str]
    """Another spelling of an attribute -> the attribute."""
    mass: frozenset[str]
    """Names without an article."""
    plural: Callable[[str], str] = plural
    strict: bool = True
    """Whether capitals, articles and the number of verbs are looked at."""


class Grammar:
    """Reads captions that are made of a vocabulary's words."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._phrases: dict[str, Phrase | None] = {}
        self._relations: dict[str, tuple[str, Phrase] | None] = {}
        self._things: dict[str, Simple | None] = {}

    def parse(self, text: str) -> Parsed:
        """The one reading of a caption."""
        assert text.endswith("."), text
        words = text[:-1]
        start, _, rest = words.partition(" ")
        readings: list[Parsed | None] = []
        if start == "There":
            verb, _, what = rest.partition(" ")
            readings += [self._number(verb, what), self._comparison(verb, what)]
            readings += [self._some(verb, what), self._pair_of_things(verb, what)]
        elif start == "Either":
            readings.append(self._clauses(rest, " or "))
        else:
            readings += self._every(self._about, words)
            readings.append(self._clauses(words[:1].lower() + words[1:], " and "))
        found = [reading for reading in readings if reading is not None]
        assert len(found) == 1, (text, found)
        return found[0]

    # ---- The S V ...

    def _every(
        self, read: Callable[[str, str, str], _Found | None], words: str
    ) -> list[_Found | None]:
        """Readings around each verb: 'is' and 'are' stand in no name and no attribute."""
        parts = words.split(" ")
        return [
            read(" ".join(parts[:at]), word, " ".join(parts[at + 1 :]))
            for at, word in enumerate(parts)
            if word in ("is", "are")
        ]

    def _about(self, head: str, verb: str, rest: str) -> Parsed | None:
        subject = self._first_phrase(head)
        if subject is None or not self._agrees(verb, subject):
            return None
        for word, joint in (("both ", " and "), ("either ", " or ")):
            if rest.startswith(word):
                splits = _splits(rest[len(word) :], joint)
                parts = _only([self._two(subject, *two) for two in splits])
                if parts is None:
                    return None
                return _parsed(Both(*parts, True) if word == "both " else Either(*parts))
        if " either " in rest:
            return self._either_object(subject, rest)
        plain = self._said(subject, rest)
        if plain is not None:
            return _parsed(plain)
        parts = _only([self._two(subject, *two) for two in _splits(rest, " and ")])
        return None if parts is None else _parsed(Both(*parts, True))

    def _clauses(self, words: str, joint: str) -> Parsed | None:
        """'the star is red and the ring is blue': each of a definite thing."""
        parts = _only([self._two_clauses(*two) for two in _splits(words, joint)])
        if parts is None:
            return None
        return _parsed(Both(*parts, False) if joint == " and " else Either(*parts))

    def _two_clauses(self, one: str, other: str) -> tuple[Simple, Simple] | None:
        first, second = self._clause(one), self._clause(other)
        if first is None or second is None or first.subject == second.subject:
            return None
        return first, second

    def _clause(self, words: str) -> Simple | None:
        return _only(self._every(self._read_clause, words)) if words[:4] == "the " else None

    def _read_clause(self, head: str, verb: str, rest: str) -> Simple | None:
        subject = self._phrase(head)
        if subject is None or not self._agrees(verb, subject):
            return None
        return self._said(subject, rest)

    def _first_phrase(self, words: str) -> Phrase | None:
        """A noun phrase at the start of a sentence, with its capital."""
        small = words[:1].lower() + words[1:]
        readings = [self._phrase(small)]
        if not small.startswith(("the ", "a ", "an ", "some ")):
            readings.append(self._phrase(words))  # 'TVs are ...'
        found = {phrase for phrase in readings if phrase is not None}
        return found.pop() if words[:1].isupper() and len(found) == 1 else None

    def _said(self, subject: Phrase, rest: str) -> Simple | None:
        """The predicate of a subject after its verb: a relation, or an attribute."""
        relation = self._relation(rest)
        if relation is not None:
            return Does(subject, *relation)
        attribute = self._predicative(rest)
        return None if attribute is None else Is(subject, attribute)

    def _two(self, subject: Phrase, first: str, second: str) -> tuple[Simple, Simple] | None:
        one, other = self._said(subject, first), self._said(subject, second)
        return None if one is None or other is None else (one, other)

    def _either_object(self, subject: Phrase, rest: str) -> Parsed | None:
        predicate, _, ends = rest.partition(" either ")
        if predicate not in self.vocabulary.predicates:
            return None
        pairs = [(self._phrase(one), self._phrase(two)) for one, two in _splits(ends, " or ")]
        found = _only([(a, b) if a and b else None for a, b in pairs])
        if found is None:
            return None
        first, second = (Does(subject, predicate, end) for end in found)
        return _parsed(Either(first, second))

    # ---- There is ...

    def _number(self, verb: str, what: str) -> Parsed | None:
        word, _, rest = what.partition(" ")
        if word not in NUMBERS or word == "zero":
            return None
        number = NUMBERS.index(word)
        counted = self._counted(rest, number != 1)
        if counted is None or verb != ("is" if number == 1 else "are"):
            return None
        return _parsed(Number(counted, number))

    def _comparison(self, verb: str, what: str) -> Parsed | None:
        for comparator, joint in (("as many", " as "), ("more", " than "), ("fewer", " than ")):
            if verb == "are" and what.startswith(comparator + " "):
                one, _, other = what[len(comparator) + 1 :].partition(joint)
                first, second = self._counted(one, True), self._counted(other, True)
                if first is not None and second is not None:
                    return _parsed(Compare(first, comparator, second))
        return None

    def _counted(self, words: str, many: bool) -> Phrase | None:
        """What is counted, in the number of the count; its name is the singular."""
        parts = words.split(" ")
        for at in range(len(parts)):
            lemma = self._lemma(" ".join(parts[at:]), many)
            attributes = None if lemma is None else self._attributes(tuple(parts[:at]))
            if lemma is not None and attributes is not None:
                return Phrase(lemma, frozenset(attributes), many)
        return None

    def _lemma(self, name: str, many: bool) -> str | None:
        lemma = self._by_number[many].get(name if self.vocabulary.strict else name.lower())
        return None if lemma in self.vocabulary.mass else lemma

    @cached_property
    def _by_number(self) -> dict[bool, dict[str, str]]:
        """Many or one -> how a count writes a name -> its singular."""
        single = {form.lemma for form in self.vocabulary.forms.values()}
        ones = {form.lemma for name, form in self.vocabulary.forms.items() if not form.plural}
        written = _capital if self.vocabulary.strict else str
        return {
            True: {written(self.vocabulary.plural(one)): one for one in sorted(ones & single)},
            False: {written(one): one for one in sorted(ones)},
        }

    def _some(self, verb: str, what: str) -> Parsed | None:
        for quantifier in ("at least one ", "some ", "no "):
            if not what.startswith(quantifier):
                continue
            head, that, rest = what.removeprefix(quantifier).partition(f" that {verb} ")
            subject = self.noun_phrase(head)
            if subject is None or not self._agrees(verb, subject):
                return None
            if subject.name in self.vocabulary.mass:
                return None
            has_number = self.vocabulary.strict and quantifier != "no "
            if has_number and (quantifier == "some ") != subject.plural:
                return None
            claim = self._said(subject, rest) if that else Is(subject, None)
            if claim is None:
                return None
            return _parsed(Not(claim) if quantifier == "no " else claim)
        return None

    def _pair_of_things(self, verb: str, what: str) -> Parsed | None:
        for word, joint in (("both ", " and "), ("either ", " or ")):
            if what.startswith(word):
                splits = _splits(what[len(word) :], joint)
                parts = _only([self._two_things(*two) for two in splits])
                if parts is None or not self._agrees(verb, parts[0].subject):
                    return None
                return _parsed(Both(*parts, False) if word == "both " else Either(*parts))
        return None

    def _two_things(self, first: str, second: str) -> tuple[Simple, Simple] | None:
        one, other = self._thing(first), self._thing(second)
        return None if one is None or other is None else (one, other)

    def _thing(self, words: str) -> Simple | None:
        """'a red star' or 'a star above the ring'."""
        if words not in self._things:
            self._things[words] = self._read_thing(words)
        return self._things[words]

    def _read_thing(self, words: str) -> Simple | None:
        found: list[Simple | None] = []
        plain = self._indefinite(words)
        if plain is not None:
            found.append(Is(plain, None))
        parts = words.split(" ")
        for number in range(1, len(parts)):
            relation = self._relation(" ".join(parts[number:]))
            subject = self._indefinite(" ".join(parts[:number])) if relation is not None else None
            if relation is not None and subject is not None:
                found.append(Does(subject, *relation))
        return _only(found)

    def _indefinite(self, words: str, before: str | None = None) -> Phrase | None:
        """A noun phrase after the right article, or rightly without one.

        Args:
            words: With the article.
            before: 'some ' or nothing, if it must be 'some' of what has no article.
        """
        article, _, rest = words.partition(" ")
        has_article = article in ("a", "an")
        phrase = self.noun_phrase(rest if has_article else words)
        if phrase is None or not self.vocabulary.strict:
            return phrase
        expected = ""
        sort = phrase.name in ONE_OF_A_SORT and phrase.attributes
        if not phrase.plural and (sort or phrase.name not in self.vocabulary.mass):
            vowel = rest[:1].lower() in tuple("aeiou") and not rest.startswith(SOUNDS_LIKE_A)
            expected = "an" if vowel else "a"
        if before is not None and (before == "some ") != (expected == ""):
            return None
        return phrase if expected == (article if has_article else "") else None

    # ---- what all templates are made of

    def noun_phrase(self, words: str) -> Phrase | None:
        """'large red star': the longest name at the end, known attributes before it."""
        if words not in self._phrases:
            self._phrases[words] = self._read_phrase(words)
        return self._phrases[words]

    def _read_phrase(self, words: str) -> Phrase | None:
        parts = words.split(" ")
        for number in range(len(parts)):
            name = " ".join(parts[number:])
            form = self.vocabulary.forms.get(self._small(name))
            if form is None:
                continue
            attributes = self._attributes(tuple(parts[:number]))
            if attributes is not None:
                return Phrase(form.lemma, frozenset(attributes), form.plural)
        return None

    def _attributes(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Words cut into attributes as they stand before a noun; None if they cannot be."""
        if not parts:
            return ()
        for number in range(len(parts), 0, -1):
            attribute = self._before_noun(" ".join(parts[:number]))
            rest = self._attributes(parts[number:]) if attribute is not None else None
            if attribute is not None and rest is not None:
                return (attribute, *rest)
        return None

    def _before_noun(self, word: str) -> str | None:
        if self.vocabulary.strict and word in ("wood", "wool", "long sleeved", "short sleeved"):
            return None  # wooden, long-sleeved
        attribute = self.vocabulary.same.get(word, word)
        attribute = self.vocabulary.same.get(attribute, attribute)
        return attribute if attribute in self.vocabulary.attributes else None

    def _predicative(self, words: str) -> str | None:
        """What follows 'is': 'red', 'made of wood'."""
        if words.startswith("made of "):
            written = words.removeprefix("made of ")
            if self.vocabulary.strict and written in ("wooden", "woolen", "metallic"):
                return None
            material = self.vocabulary.same.get(written, written)
            known = material in self.vocabulary.materials & self.vocabulary.attributes
            return material if known else None
        attribute = self._before_noun(words)
        if self.vocabulary.strict and attribute in self.vocabulary.materials:
            return None
        return attribute

    def _relation(self, words: str) -> tuple[str, Phrase] | None:
        """'to the left of the red star', 'near a star', 'on skis'."""
        if words not in self._relations:
            found = []
            for predicate, object_ in _splits(words, " "):
                known = predicate in self.vocabulary.predicates
                phrase = self._phrase(object_) if known else None
                if phrase is not None:
                    found.append((predicate, phrase))
            self._relations[words] = _only(found)
        return self._relations[words]

    def _phrase(self, words: str) -> Phrase | None:
        """'the red star', 'a star', 'some stars'."""
        if words.startswith("some "):
            return self._indefinite(words.removeprefix("some "), "some ")
        if not words.startswith("the "):
            return self._indefinite(words, "")
        phrase = self.noun_phrase(words.removeprefix("the "))
        return None if phrase is None else phrase._replace(definite=True)

    def _agrees(self, verb: str, phrase: Phrase) -> bool:
        return not self.vocabulary.strict or verb == ("are" if phrase.plural else "is")

    def _small(self, name: str) -> str:
        """A name as annotators write it; itself with a mark where its capitals are wrong."""
        if not self.vocabulary.strict:
            return name.lower()
        small = SPELLED.get(name, name)
        return small if name == _capital(small) else f"{name}?"


def _parsed(claim: Claim) -> Parsed:
    return Parsed(claim, tuple(phrase for phrase in _phrases(claim) if phrase.definite))


def _phrases(claim: Claim) -> Iterator[Phrase]:
    """Those of a claim, in their order; one that is stated once comes once."""
    match claim:
        case Is(subject):
            yield subject
        case Does(subject, _, object_):
            yield from (subject, object_)
        case Not(part):
            yield from _phrases(part)
        case Both(first, second) | Either(first, second):
            yield from dict.fromkeys((*_phrases(first), *_phrases(second)))


def _splits(words: str, joint: str) -> list[tuple[str, str]]:
    """Every way to cut words in two at a joint."""
    parts = words.split(joint)
    return [(joint.join(parts[:k]), joint.join(parts[k:])) for k in range(1, len(parts))]


def _only(found: list[_Found | None]) -> _Found | None:
    """The one reading there is; None if there is none, an error if there are several."""
    readings = [reading for reading in found if reading is not None]
    assert len(readings) < 2, readings
    return readings[0] if readings else None


def _capital(name: str) -> str:
    return {small: written for written, small in SPELLED.items()}.get(name, name)


DRAWN = Grammar(
    Vocabulary(
        FORMS,
        frozenset(PREDICATES),
        frozenset(ATTRIBUTES),
        frozenset(MATERIALS),
        SAME_ATTRIBUTE | AFTER_VERB,
        frozenset(MASS),
    )
)
"""Of the drawn worlds."""


def parse(text: str) -> Parsed:
    """The one reading of a caption about a drawn world."""
    return DRAWN.parse(text)
