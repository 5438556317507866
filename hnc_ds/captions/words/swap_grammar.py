"""What can change places with what and leave good English, and say something else.

Number, articles and verbs must fit afterwards; what stands for something said before, belongs to
someone, or means little on its own stays where it is.
"""

import re
from collections.abc import Iterator
from itertools import product

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.nouns import is_countable, is_plural, singular
from hnc_ds.captions.language.symmetric import LISTS, adjectives_alike, may_act, same_thing
from hnc_ds.captions.words.phrases import Phrase, Sentence, is_bare
from hnc_ds.captions.words.swap_meaning import changes_meaning, told_apart
from hnc_ds.captions.words.units import Span, Unit

Pair = tuple[Span, Span]
"""What changes places; the first stands further in front."""

_TOLD_BEFORE = frozenset(
    ("another", "other", "same", "each", "every", "both", "no", "either", "neither", "all", "any")
)
"""Words that lean on what was said before."""
_HIS_OR_HER = frozenset(
    ("his", "her", "hers", "he", "she", "him", "himself", "herself", "who", "whose")
)
_AIMS = frozenset(("to", "into", "onto", "from", "in to", "on to", "out of", "toward", "towards"))
"""Places that verbs of giving and moving need: 'pours wine into'."""


def phrases_may_swap(s: Sentence, i: int, j: int) -> bool:
    """Whether two whole phrases can change places."""
    one, other = s.phrases[i], s.phrases[j]
    if not _are_free(s, one, other) or is_bare(one) != is_bare(other):
        return False
    if one.plural is None or one.plural != other.plural:
        numbers_show = s.finite or any(word.tag in ("DPS", "PNX") for word in s.words)
        if numbers_show:
            return False
    return changes_meaning(s, i, j)


def nouns_may_swap(s: Sentence, i: int, j: int) -> bool:
    """Whether the nouns of two phrases can change places and leave articles and adjectives."""
    one, other = s.phrases[i], s.phrases[j]
    if not _are_free(s, one, other) or not _nouns_fit(one, other):
        return False
    for span in one.adjectives + other.adjectives:  # 'hind legs' are not 'hind zebras'
        if s.text(span) in LISTS.never_swapped_adjectives:
            return False
    return changes_meaning(s, i, j) or told_apart(s, one, other)


def _are_free(s: Sentence, one: Phrase, other: Phrase) -> bool:
    different = not same_thing(one.head, other.head)
    return different and _is_free(s, one) and _is_free(s, other)


def _is_free(s: Sentence, phrase: Phrase) -> bool:
    """Whether a phrase, or its noun, can stand elsewhere."""
    if phrase.bound or phrase.unclear:
        return False
    if _last_word(phrase) in LISTS.never_swapped_nouns | LISTS.sides:
        return False
    if not _TOLD_BEFORE.isdisjoint(s.text(phrase.span).split(" ")):
        return False
    return not (may_act(phrase.head) and any(w.text.lower() in _HIS_OR_HER for w in s.words))


def _last_word(phrase: Phrase) -> str:
    return singular(phrase.head.rsplit(" ", 1)[-1])


def _nouns_fit(one: Phrase, other: Phrase) -> bool:
    """Whether either noun is good English behind the other's article."""
    if one.measured != other.measured or is_countable(one.head) != is_countable(other.head):
        return False
    if one.measured:
        return is_plural(one.head) == is_plural(other.head)
    if one.plural is None or one.plural != other.plural:
        return False
    return one.plural or bool(one.determiner) == bool(other.determiner)


def adjective_pairs(s: Sentence, i: int, j: int) -> Iterator[Pair]:
    """Adjectives of two phrases that can change places."""
    one, other = s.phrases[i], s.phrases[j]
    abstract = {_last_word(one), _last_word(other)} & LISTS.never_swapped_nouns
    if one.unclear or other.unclear or abstract:
        return
    if same_thing(one.head, other.head) and not changes_meaning(s, i, j):
        return
    alone = len(one.adjectives) == len(other.adjectives) == 1
    for a, b in product(one.adjectives, other.adjectives):
        ours, theirs = s.text(a), s.text(b)
        of_one_class = any(cls in classes_of(theirs) for cls in classes_of(ours))
        fit = (alone or of_one_class) and not adjectives_alike(ours, theirs)
        if fit and _is_plain_adjective(s, a) and _is_plain_adjective(s, b):
            yield a, b


def predicates(s: Sentence) -> list[tuple[Phrase, Span]]:
    """Adjectives behind 'is', each with its subject: 'the sky is blue and the grass is green'."""
    letters = "".join(unit.letter for unit in s.units)
    found = []
    for match in re.finditer(r"N(BR?)A(?![ANP])", letters):
        span = s.units[match.end() - 1].span
        phrase = next(p for p in s.phrases if p.span.end == s.units[match.start(1)].span.start)
        starts = [unit for unit in s.units if unit.span.end == phrase.span.start]
        if (not starts or starts[0].letter in "JK") and _is_plain_adjective(s, span):
            found.append((phrase, span))
    return found


def _is_plain_adjective(s: Sentence, span: Span) -> bool:
    words = s.words[slice(*span)]
    return all(
        word.tag in ("AJ0", "CJC") and word.text.lower() not in LISTS.never_swapped_adjectives
        for word in words
    )


def is_plain_verb(s: Sentence, unit: Unit) -> bool:
    """Whether a verb means something without what follows it."""
    word = s.words[unit.span.start]
    return word.tag in ("VVG", "VVZ", "VVB") and word.lemma not in LISTS.never_swapped_verbs


def verbs_fit(s: Sentence, a: int, b: int) -> bool:
    """Whether two verbs can change places: each has an object, or each just a subject."""
    ends = with_places(s, a).end, with_places(s, b).end
    objects = [next((p for p in s.phrases if p.span.start == end), None) for end in ends]
    one, other = objects
    if one and other:
        aimed = any(_place_after(s, phrase) in _AIMS for phrase in (one, other))
        return not aimed and not same_thing(one.head, other.head)
    if one or other:
        return False
    subjects = [_subject_before(s, index) for index in (a, b)]
    bare = all(_stands_alone(s, index) for index in (a, b))
    return bare and None not in subjects and subjects[0] != subjects[1]


def _stands_alone(s: Sentence, index: int) -> bool:
    """Whether nothing but an adverb or a new clause follows a verb."""
    while index + 1 < len(s.units) and s.units[index + 1].letter == "R":
        index += 1
    following = s.units[index + 1] if index + 1 < len(s.units) else None
    return following is None or following.letter in "JK" or s.text(following.span) in ".!?;,"


def with_places(s: Sentence, index: int) -> Span:
    """A verb with the prepositions right behind it: 'sitting on'."""
    end = index + 1
    while end < len(s.units) and s.units[end].letter == "P":
        end += 1
    return Span(s.units[index].span.start, s.units[end - 1].span.end)


def _place_after(s: Sentence, phrase: Phrase) -> str:
    return next((s.text(u.span) for u in s.units if u.span.start == phrase.span.end), "")


def _subject_before(s: Sentence, index: int) -> Phrase | None:
    while index and s.units[index - 1].letter in "BR":
        index -= 1
    return next((p for p in s.phrases if p.span.end == s.units[index].span.start), None)


def is_manner(s: Sentence, unit: Unit) -> bool:
    """Whether an adverb tells how something is done: 'slowly'."""
    text = s.text(unit.span)
    return text.endswith("ly") and text not in LISTS.never_swapped_adverbs
