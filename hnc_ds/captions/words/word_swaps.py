"""Negatives by exchanging words of a caption, as NegCLIP and Structure-CLIP make them.

From tagged words to captions that say something else, or to nothing: what would leave the meaning
as it was (a man walks with a dog) or the grammar broken is not made. That the image is not as the
new caption says is likely and not proven, so every negative is marked ``open_world``.

Source: NegCLIP exchanges nouns, adjectives, adverbs, verb phrases or noun phrases (Yuksekgonul et
al. 2023); Structure-CLIP the ends of a relation or the attributes of its ends (Huang et al. 2023).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.symmetric import adjectives_alike, may_act, same_thing, verbs_alike
from hnc_ds.captions.words.exchanged_words import exchanged
from hnc_ds.captions.words.phrases import Sentence, parse
from hnc_ds.captions.words.swap_grammar import (
    Pair,
    adjective_pairs,
    is_manner,
    is_plain_verb,
    nouns_may_swap,
    phrases_may_swap,
    predicates,
    verbs_fit,
    with_places,
)
from hnc_ds.captions.words.tagging import Word
from hnc_ds.records import Negative


def swap_negatives(
    caption: str,
    sentences: Sequence[Sequence[Word]],
    types: Sequence[str],
    most: int,
    rng: random.Random,
) -> tuple[Negative, ...]:
    """Captions with two elements exchanged, at most one of each type.

    Args:
        caption: Taken to be true.
        sentences: Its tagged words.
        types: Names of ``WORD_SWAPS``.
        most: Negatives that are kept.
        rng: Draws which exchange stands for a type, and which types if there are more than
            ``most``.
    """
    parsed = [parse(words) for words in sentences]
    found: dict[str, Negative] = {}
    for type_ in rng.sample(types, len(types)):
        pairs = [(s, pair) for s in parsed for pair in WORD_SWAPS[type_](s)]
        rng.shuffle(pairs)
        # Of a boy, a dog and a ball, boy and dog are harder to tell apart when exchanged.
        pairs.sort(key=lambda found: not _of_one_sort(*found))
        for sentence, (one, other) in pairs:
            text = exchanged(caption, sentence, one, other)
            if _plain(text) not in found and _plain(text) != _plain(caption):
                words = sentence.text(one), sentence.text(other)
                found[_plain(text)] = Negative(text, type_, words, open_world=True)
                break
        if len(found) == most:
            break
    return tuple(sorted(found.values(), key=lambda negative: types.index(negative.type)))


def swapped_nouns(s: Sentence) -> Iterator[Pair]:
    """'A dog chases a cat.' -> 'A cat chases a dog.'; adjectives stay where they are."""
    for i, j in _pairs(s):
        if nouns_may_swap(s, i, j):
            yield s.phrases[i].nouns, s.phrases[j].nouns


def swapped_noun_phrases(s: Sentence) -> Iterator[Pair]:
    """'A big dog chases the cat.' -> 'The cat chases a big dog.'"""
    return (
        (s.phrases[i].span, s.phrases[j].span) for i, j in _pairs(s) if phrases_may_swap(s, i, j)
    )


def swapped_relation_ends(s: Sentence) -> Iterator[Pair]:
    """Subject and object of a relation: 'A cup is on a book.' -> 'A book is on a cup.'"""
    for i, j in _relations(s):
        if not s.links[j - 1].mutual and phrases_may_swap(s, i, j):
            yield s.phrases[i].span, s.phrases[j].span


def swapped_adjectives(s: Sentence) -> Iterator[Pair]:
    """'A red cup by a blue bowl' -> 'A blue cup by a red bowl'."""
    for i, j in _pairs(s):
        yield from adjective_pairs(s, i, j)
    for (one, ours), (other, theirs) in combinations(predicates(s), 2):
        different = not same_thing(one.head, other.head)
        if different and not adjectives_alike(s.text(ours), s.text(theirs)):
            yield ours, theirs


def swapped_relation_attributes(s: Sentence) -> Iterator[Pair]:
    """Adjectives of a relation's subject and object."""
    for i, j in _relations(s):
        yield from adjective_pairs(s, i, j)


def swapped_verbs(s: Sentence) -> Iterator[Pair]:
    """'A man sits on a bench eating a pie.' -> 'A man eats ...': verbs with their prepositions."""
    verbs = [index for index, unit in enumerate(s.units) if is_plain_verb(s, unit)]
    for n, a in enumerate(verbs):
        for b in verbs[n + 1 :]:
            one, other = s.words[s.units[a].span.start], s.words[s.units[b].span.start]
            if one.tag != other.tag or verbs_alike(one.lemma, other.lemma):
                continue
            if verbs_fit(s, a, b):
                yield with_places(s, a), with_places(s, b)


def swapped_adverbs(s: Sentence) -> Iterator[Pair]:
    """'A man walks slowly while a dog barks loudly.' -> '... loudly ... slowly.'"""
    adverbs = [unit.span for unit in s.units if unit.letter == "R" and is_manner(s, unit)]
    for n, one in enumerate(adverbs):
        for other in adverbs[n + 1 :]:
            between = s.words[one.end : other.start]
            new_subject = any(one.end <= p.span.start < other.start for p in s.phrases)
            told = [word for word in between if word.tag.startswith("VV")]
            if s.text(one) != s.text(other) and told and new_subject:
                yield one, other


WORD_SWAPS: dict[str, Callable[[Sentence], Iterator[Pair]]] = {
    "negclip_noun": swapped_nouns,
    "negclip_adjective": swapped_adjectives,
    "negclip_adverb": swapped_adverbs,
    "negclip_verb": swapped_verbs,
    "negclip_noun_phrase": swapped_noun_phrases,
    "structure_clip_attribute": swapped_relation_attributes,
    "structure_clip_relation": swapped_relation_ends,
}
"""Negative type -> what it exchanges in a sentence."""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _of_one_sort(s: Sentence, pair: Pair) -> bool:
    one, other = map(s.text, pair)
    ours, theirs = classes_of(one), classes_of(other)
    if ours or theirs:
        return any(cls in theirs for cls in ours)
    return may_act(one) == may_act(other)


def _pairs(s: Sentence) -> Iterator[tuple[int, int]]:
    """Places of all pairs of phrases."""
    return combinations(range(len(s.phrases)), 2)


def _relations(s: Sentence) -> Iterator[tuple[int, int]]:
    """Places of subject and object of every relation."""
    for i, link in enumerate(s.links):
        if not link.joint and (link.verbs or link.place):
            yield _subject(s, i), i + 1


def _subject(s: Sentence, i: int) -> int:
    """The phrase that does what link i says: in 'a man in a hat rides', the man."""
    verbs = s.links[i].verbs
    if not verbs or not verbs[-1].tag.startswith("VV") or verbs[-1].tag in ("VVN", "VVD"):
        return i
    while i and s.links[i - 1].place and not s.links[i - 1].verbs and not s.links[i - 1].joint:
        i -= 1
    return i
