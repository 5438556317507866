"""Captions back from their text: a grammar of every template, with its own view of English.

A caption that no rule covers, that two rules cover, or whose articles or verbs are wrong is an
error. Claims are plain tuples; what they mean is judging.py's business.
"""

from functools import lru_cache
from typing import TypeVar

from tests.captions.worlds.claims import (
    Both,
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
    PREDICATES,
    SOUNDS_LIKE_A,
    SPELLED,
    plural,
)
from tests.captions.worlds.properties import ATTRIBUTES, MATERIALS, SAME_ATTRIBUTE

_Found = TypeVar("_Found")


def parse(text: str) -> Parsed:
    """The one reading of a caption."""
    assert text.endswith("."), text
    words = text[:-1]
    start, _, rest = words.partition(" ")
    readings: list[Parsed | None] = []
    if start == "The":
        readings.append(_the(rest))
    elif start == "There":
        verb, _, what = rest.partition(" ")
        readings += [_number(verb, what), _comparison(verb, what), _some(verb, what)]
        readings.append(_pair_of_things(verb, what))
    found = [reading for reading in readings if reading is not None]
    assert len(found) == 1, (text, found)
    return found[0]


# ---- The S V ...


def _the(words: str) -> Parsed | None:
    head, verb, rest = _around_verb(words)
    subject = noun_phrase(head)
    if subject is None or verb != _verb(subject):
        return None
    for word, joint in (("both ", " and "), ("either ", " or ")):
        if rest.startswith(word):
            parts = _only([_two(subject, *two) for two in _splits(rest[len(word) :], joint)])
            if parts is None:
                return None
            claim = Both(*parts, True) if word == "both " else Either(*parts)
            return Parsed(claim, (subject, parts[0].object, parts[1].object))
    if " either the " in rest:
        return _either_object(subject, rest)
    relation = _relation(rest)
    if relation is not None:
        return Parsed(Does(subject, *relation), (subject, relation[1]))
    attribute = _predicative(rest)
    return None if attribute is None else Parsed(Is(subject, attribute), (subject,))


def _two(subject: Phrase, first: str, second: str) -> tuple[Does, Does] | None:
    one, other = _relation(first), _relation(second)
    return None if one is None or other is None else (Does(subject, *one), Does(subject, *other))


def _either_object(subject: Phrase, rest: str) -> Parsed | None:
    predicate, _, ends = rest.partition(" either the ")
    first, _, second = ends.partition(" or the ")
    one, other = noun_phrase(first), noun_phrase(second)
    if predicate not in PREDICATES or one is None or other is None:
        return None
    claim = Either(Does(subject, predicate, one), Does(subject, predicate, other))
    return Parsed(claim, (subject, one, other))


# ---- There is ...


def _number(verb: str, what: str) -> Parsed | None:
    word, _, name = what.partition(" ")
    if word not in NUMBERS or word == "zero":
        return None
    number = NUMBERS.index(word)
    lemma = _lemma(name, number != 1)
    if lemma is None or verb != ("is" if number == 1 else "are"):
        return None
    return Parsed(Number(lemma, number), ())


def _comparison(verb: str, what: str) -> Parsed | None:
    for comparator, joint in (("as many", " as "), ("more", " than "), ("fewer", " than ")):
        if verb == "are" and what.startswith(comparator + " "):
            one, _, other = what[len(comparator) + 1 :].partition(joint)
            lemmas = _lemma(one, True), _lemma(other, True)
            if lemmas[0] is not None and lemmas[1] is not None:
                return Parsed(Compare(lemmas[0], comparator, lemmas[1]), ())
    return None


@lru_cache(maxsize=1 << 10)
def _lemma(name: str, many: bool) -> str | None:
    """The singular of a name that is counted, in the number that the count asks for."""
    for lemma, form in FORMS.items():
        if not form.plural and name == _capital(plural(lemma) if many else lemma):
            return None if lemma in MASS else lemma
    return None


def _some(verb: str, what: str) -> Parsed | None:
    for quantifier in ("at least one ", "some ", "no "):
        head, that, rest = what.removeprefix(quantifier).partition(f" that {verb} ")
        if not what.startswith(quantifier) or not that:
            continue
        subject = noun_phrase(head)
        if subject is None or verb != _verb(subject) or subject.name in MASS:
            return None
        if quantifier != "no " and (quantifier == "some ") != subject.plural:
            return None
        relation, attribute = _relation(rest), _predicative(rest)
        claim = Does(subject, *relation) if relation else Is(subject, attribute)
        if relation is None and attribute is None:
            return None
        definite = () if relation is None else (relation[1],)
        return Parsed(Not(claim) if quantifier == "no " else claim, definite)
    return None


def _pair_of_things(verb: str, what: str) -> Parsed | None:
    for word, joint in (("both ", " and "), ("either ", " or ")):
        if what.startswith(word):
            parts = _only([_two_things(*two) for two in _splits(what[len(word) :], joint)])
            if parts is None or verb != _verb(parts[0].subject):
                return None
            claim = Both(*parts, False) if word == "both " else Either(*parts)
            return Parsed(claim, tuple(p.object for p in parts if isinstance(p, Does)))
    return None


def _two_things(first: str, second: str) -> tuple[Simple, Simple] | None:
    one, other = _thing(first), _thing(second)
    return None if one is None or other is None else (one, other)


@lru_cache(maxsize=1 << 16)
def _thing(words: str) -> Simple | None:
    """'a red star' or 'a star above the ring'."""
    found: list[Simple | None] = []
    plain = _indefinite(words)
    if plain is not None:
        found.append(Is(plain, None))
    parts = words.split(" ")
    for number in range(1, len(parts)):
        relation = _relation(" ".join(parts[number:]))
        subject = _indefinite(" ".join(parts[:number])) if relation is not None else None
        if relation is not None and subject is not None:
            found.append(Does(subject, *relation))
    return _only(found)


def _indefinite(words: str) -> Phrase | None:
    """A noun phrase after the right article, or rightly without one."""
    article, _, rest = words.partition(" ")
    phrase = noun_phrase(rest if article in ("a", "an") else words)
    if phrase is None:
        return None
    expected = ""
    if not phrase.plural and phrase.name not in MASS:
        vowel = rest[:1].lower() in tuple("aeiou") and not rest.startswith(SOUNDS_LIKE_A)
        expected = "an" if vowel else "a"
    return phrase if expected == (article if article in ("a", "an") else "") else None


# ---- what all templates are made of


@lru_cache(maxsize=1 << 16)
def noun_phrase(words: str) -> Phrase | None:
    """'large red star': the longest name at the end, known attributes before it."""
    parts = words.split(" ")
    for number in range(len(parts)):
        name = " ".join(parts[number:])
        form = FORMS.get(_small(name))
        if form is None or name != _capital(_small(name)):
            continue
        attributes = _attributes(tuple(parts[:number]))
        if attributes is not None:
            return Phrase(form.lemma, frozenset(attributes), form.plural)
    return None


def _attributes(parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Words cut into attributes as they stand before a noun; None if they cannot be."""
    if not parts:
        return ()
    for number in range(len(parts), 0, -1):
        attribute = _before_noun(" ".join(parts[:number]))
        rest = _attributes(parts[number:]) if attribute is not None else None
        if attribute is not None and rest is not None:
            return (attribute, *rest)
    return None


def _before_noun(word: str) -> str | None:
    if word in ("wood", "long sleeved", "short sleeved"):
        return None  # wooden, long-sleeved
    attribute = SAME_ATTRIBUTE.get(word, word)
    return attribute if attribute in ATTRIBUTES else None


def _predicative(words: str) -> str | None:
    """What follows 'is': 'red', 'made of wood'."""
    if words.startswith("made of "):
        material = words.removeprefix("made of ")
        return material if material in MATERIALS and material in ATTRIBUTES else None
    attribute = _before_noun(words)
    return None if attribute in MATERIALS else attribute


@lru_cache(maxsize=1 << 16)
def _relation(words: str) -> tuple[str, Phrase] | None:
    """'to the left of the red star'."""
    found = []
    for predicate, object_ in _splits(words, " the "):
        phrase = noun_phrase(object_) if predicate in PREDICATES else None
        if phrase is not None:
            found.append((predicate, phrase))
    return _only(found)


def _splits(words: str, joint: str) -> list[tuple[str, str]]:
    """Every way to cut words in two at a joint."""
    parts = words.split(joint)
    return [(joint.join(parts[:k]), joint.join(parts[k:])) for k in range(1, len(parts))]


def _only(found: list[_Found | None]) -> _Found | None:
    """The one reading there is; None if there is none, an error if there are several."""
    readings = [reading for reading in found if reading is not None]
    assert len(readings) < 2, readings
    return readings[0] if readings else None


def _around_verb(words: str) -> tuple[str, str, str]:
    """Subject, 'is' or 'are', and the rest."""
    parts = words.split(" ")
    at = next((k for k, word in enumerate(parts) if word in ("is", "are")), len(parts))
    return " ".join(parts[:at]), "".join(parts[at : at + 1]), " ".join(parts[at + 1 :])


def _verb(phrase: Phrase) -> str:
    return "are" if phrase.plural else "is"


def _small(name: str) -> str:
    return SPELLED.get(name, name)


def _capital(name: str) -> str:
    return {small: written for written, small in SPELLED.items()}.get(name, name)
