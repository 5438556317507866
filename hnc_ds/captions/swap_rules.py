"""Which parts of a sentence can be swapped so that good English with another meaning results.

Number, articles and verbs must agree afterwards. Anaphora, possessives and words that mean little
alone are not swapped. Neither are pairs that leave the meaning unchanged: 'a man walks with a dog',
'a cup and a plate', or 'a man sits on a bench next to a woman', who sits there too. In ambiguous
cases the meaning counts as unchanged.
"""

import re
from collections.abc import Iterator
from itertools import product

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.nouns import is_countable, is_plural, singular
from hnc_ds.captions.language.symmetric import (
    LISTS,
    adjectives_alike,
    may_act,
    same_thing,
    verbs_alike,
)
from hnc_ds.captions.phrases import Link, Phrase, Sentence, Span, Unit, Word, is_bare

Pair = tuple[Span, Span]
"""Two spans to swap, in the order of the sentence."""

_ANAPHORIC = frozenset(
    ("another", "other", "same", "each", "every", "both", "no", "either", "neither", "all", "any")
)
"""Words that refer to something mentioned before."""
_HIS_OR_HER = frozenset(
    ("his", "her", "hers", "he", "she", "him", "himself", "herself", "who", "whose")
)
_AIMS = frozenset(("to", "into", "onto", "from", "in to", "on to", "out of", "toward", "towards"))
"""Destinations that verbs of giving and moving need: 'pours wine into'."""


def phrases_may_swap(s: Sentence, i: int, j: int) -> bool:
    """Whether two whole phrases can be swapped."""
    one, other = s.phrases[i], s.phrases[j]
    if not _are_free(s, one, other) or is_bare(one) != is_bare(other):
        return False
    if one.plural is None or one.plural != other.plural:
        numbers_show = s.finite or any(word.tag in ("DPS", "PNX") for word in s.words)
        if numbers_show:
            return False
    return changes_meaning(s, i, j)


def nouns_may_swap(s: Sentence, i: int, j: int) -> bool:
    """Whether the nouns of two phrases can be swapped; articles and adjectives stay."""
    one, other = s.phrases[i], s.phrases[j]
    if not _are_free(s, one, other) or not _nouns_fit(one, other):
        return False
    for span in one.adjectives + other.adjectives:  # 'hind legs' are not 'hind zebras'
        if s.text(span) in LISTS.never_swapped_adjectives:
            return False
    return changes_meaning(s, i, j) or (not _share_words(s, i, j) and differ(s, one, other))


def _share_words(s: Sentence, i: int, j: int) -> bool:
    """Whether number and adjectives before phrase i may be of j, too: 'eight men and women'."""
    other = s.phrases[j]
    has_own = other.determiner or other.counted or other.adjectives
    return not has_own and all(link.joint for link in s.links[i:j])


def _are_free(s: Sentence, one: Phrase, other: Phrase) -> bool:
    different = not same_thing(one.head, other.head)
    return different and _is_free(s, one) and _is_free(s, other)


def _is_free(s: Sentence, phrase: Phrase) -> bool:
    """Whether a phrase, or its noun, can be moved."""
    if phrase.bound or phrase.unclear:
        return False
    if _last_word(phrase) in LISTS.never_swapped_nouns | LISTS.sides:
        return False
    if not _ANAPHORIC.isdisjoint(s.text(phrase.span).split(" ")):
        return False
    return not (may_act(phrase.head) and any(w.text.lower() in _HIS_OR_HER for w in s.words))


def _last_word(phrase: Phrase) -> str:
    return singular(phrase.head.rsplit(" ", 1)[-1])


def _nouns_fit(one: Phrase, other: Phrase) -> bool:
    """Whether each noun fits the other's article."""
    if one.measured != other.measured or is_countable(one.head) != is_countable(other.head):
        return False
    if one.measured:
        return is_plural(one.head) == is_plural(other.head)
    if one.plural is None or one.plural != other.plural:
        return False
    return one.plural or bool(one.determiner) == bool(other.determiner)


def adjective_pairs(s: Sentence, i: int, j: int) -> Iterator[Pair]:
    """Adjectives of two phrases that can be swapped."""
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
    """Adjectives after 'is', each with its subject: 'the sky is blue and the grass is green'."""
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
    """Whether a verb has a meaning without its complement."""
    word = s.words[unit.span.start]
    return word.tag in ("VVG", "VVZ", "VVB") and word.lemma not in LISTS.never_swapped_verbs


def verbs_fit(s: Sentence, a: int, b: int) -> bool:
    """Whether two verbs can be swapped: both have an object, or both only a subject."""
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
    """A verb with the prepositions right after it: 'sitting on'."""
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
    """Whether an adverb is one of manner: 'slowly'."""
    text = s.text(unit.span)
    return text.endswith("ly") and text not in LISTS.never_swapped_adverbs


_Predicate = tuple[tuple[Word, ...], str, str]
"""Verbs, place and object."""


def changes_meaning(s: Sentence, i: int, j: int) -> bool:
    """Whether swapping phrases i and j, i before j, changes the meaning."""
    last = s.links[j - 1]
    if last.joint:
        return _have_different_predicates(s, i, j)
    if last.mutual:
        return False
    return not (_same_role(s, i, j) or _either_order(s, i, j))


def differ(s: Sentence, one: Phrase, other: Phrase) -> bool:
    """Whether adjectives or numbers differ, so that swapping the nouns alone changes the meaning.

    'A white cat and a black dog' is not 'a white dog and a black cat'.
    """
    if one.counted != other.counted or (one.counted and _count(s, one) != _count(s, other)):
        return True
    ours, theirs = (sorted(map(s.text, phrase.adjectives)) for phrase in (one, other))
    return bool(ours or theirs) and not any(adjectives_alike(a, b) for a in ours for b in theirs)


def _count(s: Sentence, phrase: Phrase) -> str:
    return s.words[phrase.span.start].text.lower()


def _have_different_predicates(s: Sentence, i: int, j: int) -> bool:
    """Whether i and j have different predicates: 'A boy throws a ball while a dog sleeps'."""
    ours, theirs = _predicate(s, i), _predicate(s, j)
    if not any(ours) or not any(theirs):
        return False
    same_verbs = _verbs_alike(ours[0], theirs[0])
    head, other = ours[2], theirs[2]
    same_noun = head == other or bool(head and other and same_thing(head, other))
    return not (same_verbs and ours[1] == theirs[1] and same_noun)


def _predicate(s: Sentence, i: int) -> _Predicate:
    """The predicate that follows phrase i."""
    if i == len(s.links):
        return s.last_verbs, "", ""
    link = s.links[i]
    return link.verbs, link.place, "" if link.joint else s.phrases[i + 1].head


def _same_role(s: Sentence, i: int, j: int) -> bool:
    """Whether i and j have the same role with one thing: 'on a chair and on a table'."""
    before = i - 1
    while before >= 0 and s.links[before].joint:
        before -= 1
    if before < 0:
        return False
    new_subject = any(link.joint for link in s.links[i : j - 1])
    if new_subject and not same_thing(s.phrases[before].head, s.phrases[j - 1].head):
        return False
    return _links_alike(s.links[before], s.links[j - 1])


def _either_order(s: Sentence, i: int, j: int) -> bool:
    """Whether both orders mean one scene: 'riding a wave on a surfboard', 'on skis in the snow'."""
    if i == 0 or any(link.joint for link in s.links[i - 1 : j]):
        return False
    before, last = s.links[i - 1], s.links[j - 1]
    if before.verbs and not before.place and not last.verbs:
        return last.place in LISTS.object_or_place.get(before.verbs[-1].lemma, ())
    both_places = (
        before.only_place and not last.verbs and {before.place, last.place} <= LISTS.on_or_in
    )
    grounds = (is_a(s.phrases[k].head, group) for k in (i, j) for group in ("stuff", "grounds"))
    return both_places and any(grounds)


def _links_alike(first: Link, second: Link) -> bool:
    if first.place != second.place:
        return False
    return _verbs_alike(first.verbs, second.verbs) or (bool(first.place) and not second.verbs)


def _verbs_alike(ours: tuple[Word, ...], theirs: tuple[Word, ...]) -> bool:
    if not ours or not theirs:
        return not ours and not theirs
    return verbs_alike(ours[-1].lemma, theirs[-1].lemma)
