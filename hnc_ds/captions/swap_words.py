"""A list of captions -> captions.jsonl with word swaps: parallel, resumable, reproducible.

    hnc-ds swap-words --captions captions_train2017.json --out coco.captions.jsonl.gz

Every caption becomes a group of type 'caption', without negatives where there is no swap
(``--keep_captions swapped`` drops those); negatives from columns of the list come first. Without
scene graphs no negative is proven false, so all are tagged ``open_world``. Swaps that keep the
meaning (a man walks with a dog) or break the grammar are not made. Statistics are written to
OUT.stats.json. A caption's negatives depend only on the seed, the image's id and the caption; with
``--fluency_margin`` also on all captions of the list, which is then read twice.

Source: NegCLIP exchanges nouns, adjectives, adverbs, verb phrases or noun phrases (Yuksekgonul et
al. 2023); Structure-CLIP the ends of a relation or the attributes of its ends (Huang et al. 2023).
"""

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from hnc_ds.captions.captions_file import Chunk, check_name, chunk_of, open_parts, write_captions
from hnc_ds.captions.coverage import Coverage, coverage_of
from hnc_ds.captions.formats.caption_lists import (
    GROUP_TYPE,
    ListedImage,
    check_is_list,
    digest_of_captions,
    plain,
    read_caption_list,
)
from hnc_ds.captions.formats.caption_rows import NegativeColumns
from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.symmetric import adjectives_alike, may_act, same_thing, verbs_alike
from hnc_ds.captions.language.wording import indefinite
from hnc_ds.captions.phrases import Sentence, Span, Word, load_tagger, parse, tag_sentences
from hnc_ds.captions.swap_rules import (
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
from hnc_ds.captions.text_classifier import MOST_WORDS, NGrams, Trigrams, words_of
from hnc_ds.config import SwapWordsConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.output_lock import only_writer
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative


def swap_negatives(
    caption: str,
    sentences: Sequence[Sequence[Word]],
    types: Sequence[str],
    most: int,
    rng: random.Random,
    likely: Callable[[Iterable["Swap"]], Iterable["Swap"]] = lambda swaps: swaps,
) -> tuple[Negative, ...]:
    """Captions with two elements swapped, at most one of each type.

    Args:
        caption: Assumed to be true.
        sentences: Its tagged words.
        types: Names of ``WORD_SWAPS``.
        most: Maximum number of negatives.
        rng: Draws the swap of a type, and the types if more than ``most`` have one.
        likely: Chooses among the swaps of a type, the first of which is taken.
    """
    parsed = [parse(words) for words in sentences]
    found: dict[str, Negative] = {}
    for type_ in rng.sample(types, len(types)):
        pairs = [(s, pair) for s in parsed for pair in WORD_SWAPS[type_](s)]
        rng.shuffle(pairs)
        # Swaps of similar things are harder negatives: boy and dog rather than boy and ball.
        pairs.sort(key=lambda pair: not _are_similar(*pair))
        for text, words in likely(_swap(caption, *pair) for pair in pairs):
            if _plain(text) not in found and _plain(text) != _plain(caption):
                found[_plain(text)] = Negative(text, type_, words, open_world=True)
                break
        if len(found) == most:
            break
    return tuple(sorted(found.values(), key=lambda negative: types.index(negative.type)))


class Swap(NamedTuple):
    """A caption with two elements swapped."""

    text: str
    words: tuple[str, str]
    """The elements."""


def _swap(caption: str, sentence: Sentence, pair: Pair) -> Swap:
    one, other = pair
    text = swapped(caption, sentence, one, other)
    return Swap(text, (sentence.text(one), sentence.text(other)))


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
            verbs = [word for word in between if word.tag.startswith("VV")]
            if s.text(one) != s.text(other) and verbs and new_subject:
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
"""Negative type -> function that yields the pairs to swap in a sentence."""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _are_similar(s: Sentence, pair: Pair) -> bool:
    one, other = map(s.text, pair)
    ours, theirs = classes_of(one), classes_of(other)
    if ours or theirs:
        return any(cls in theirs for cls in ours)
    return may_act(one) == may_act(other)


def _pairs(s: Sentence) -> Iterator[tuple[int, int]]:
    """Indices of all pairs of phrases."""
    return combinations(range(len(s.phrases)), 2)


def _relations(s: Sentence) -> Iterator[tuple[int, int]]:
    """Indices of subject and object of every relation."""
    for i, link in enumerate(s.links):
        if not link.joint and (link.verbs or link.place):
            yield _subject(s, i), i + 1


def _subject(s: Sentence, i: int) -> int:
    """Index of the subject of link i: in 'a man in a hat rides', the man."""
    verbs = s.links[i].verbs
    if not verbs or not verbs[-1].tag.startswith("VV") or verbs[-1].tag in ("VVN", "VVD"):
        return i
    while i and s.links[i - 1].place and not s.links[i - 1].verbs and not s.links[i - 1].joint:
        i -= 1
    return i


def swapped(caption: str, sentence: Sentence, one: Span, other: Span) -> str:
    """The caption with two spans swapped; spacing, capitals and articles are adjusted.

    Args:
        caption: The whole caption.
        sentence: The sentence that contains both spans.
        one: The first span.
        other: The second span; they do not overlap.
    """
    order = [
        *range(one.start),
        *range(*other),
        *range(one.end, other.start),
        *range(*one),
        *range(other.end, len(sentence.words)),
    ]
    words = sentence.words
    texts = _with_capital(words, order, [words[index].text for index in order])
    texts = _with_articles(words, order, texts)
    gaps = _gaps(caption, words, one, other)
    pieces = [text + gaps[index] for text, index in zip(texts, order, strict=True)]
    end = words[-1].start + len(words[-1].text)
    return caption[: words[0].start] + "".join(pieces) + caption[end:]


def _gaps(caption: str, words: Sequence[Word], one: Span, other: Span) -> dict[int, str]:
    """The text after each word: within a span unchanged, at its end that of the new position."""
    gaps = {
        index: caption[left.start + len(left.text) : right.start]
        for index, (left, right) in enumerate(pairwise(words))
    }
    gaps[len(words) - 1] = ""
    gaps[one.end - 1], gaps[other.end - 1] = gaps[other.end - 1], gaps[one.end - 1]
    return gaps


def _with_capital(words: Sequence[Word], order: list[int], texts: list[str]) -> list[str]:
    """Capitalise the new first word and lowercase the old one, unless it is a name."""
    if order[0] == 0 or not words[0].text[0].isupper() or _is_shouted(words):
        return texts
    started = order.index(0)
    if words[0].tag != "NP0" and words[0].text[1:] == words[0].text[1:].lower():
        texts[started] = texts[started].lower()
    texts[0] = texts[0][0].upper() + texts[0][1:]
    return texts


def _is_shouted(words: Sequence[Word]) -> bool:
    return all(word.text.isupper() for word in words if word.text.isalpha())


def _with_articles(words: Sequence[Word], order: list[int], texts: list[str]) -> list[str]:
    """Choose 'a' or 'an' by the new following word."""
    for place, index in enumerate(order[:-1]):
        article = words[index].text.lower()
        same = index + 1 == order[place + 1]
        if article in ("a", "an") and words[index].tag == "AT0" and not same:
            # 'thing' makes the word an adjective for ``indefinite``.
            right = indefinite(f"{texts[place + 1].lower()} thing").split(" ", 1)[0]
            texts[place] = _cased_like(texts[place], right, _is_shouted(words))
    return texts


def _cased_like(pattern: str, text: str, shouted: bool) -> str:
    if shouted:
        return text.upper()
    return text.capitalize() if pattern[0].isupper() else text


FOLDS = 2
"""Parts of the list's images. A caption is judged by the captions of other parts: one that a model
was trained on would be more likely than any swap of it."""


class Fluency:
    """Trigram models of a list's captions.

    Args:
        images: The list; iterated once.
    """

    def __init__(self, images: Iterable[ListedImage]) -> None:
        self._numbers: dict[str, int] = {}
        parts: list[list[array[int]]] = [[] for _ in range(FOLDS)]
        for image in images:
            for caption in image.captions:
                numbers = array("i", map(self._number, _words(caption)))
                parts[_fold(image.image_id)].append(numbers)
        self._vocabulary = 1 + len(self._numbers)  # 0 is an unknown word
        self._models = [
            Trigrams(NGrams(chain.from_iterable(parts[:n] + parts[n + 1 :]), self._vocabulary))
            for n in range(FOLDS)
        ]

    def gains(self, image_id: str, caption: str, swaps: Sequence[Swap]) -> list["Gain"]:
        """By how much each swap is more likely than the caption."""
        if not swaps:
            return []
        texts = [caption, *(swap.text for swap in swaps)]
        numbers = [[self._numbers.get(word, 0) for word in _words(text)] for text in texts]
        grams = NGrams(numbers, self._vocabulary)
        first, *others = self._models[_fold(image_id)].logarithms(grams).tolist()
        changed = [len(" ".join(swap.words).split()) for swap in swaps]
        found = zip(swaps, others, changed, strict=True)
        return [Gain(swap, (other - first) / words) for swap, other, words in found]

    def _number(self, word: str) -> int:
        """The word's number, a new one if it has none; 0 for any beyond MOST_WORDS."""
        if len(self._numbers) >= MOST_WORDS - 3:
            return self._numbers.get(word, 0)
        return self._numbers.setdefault(word, 1 + len(self._numbers))


class Gain(NamedTuple):
    """A swap, and its log probability less that of its caption, in nats per swapped word."""

    swap: Swap
    gain: float


def _words(text: str) -> list[str]:
    return words_of(text.casefold())


def _fold(image_id: str) -> int:
    return crc32(image_id.encode()) % FOLDS


VERSION = 4
"""To be incremented when the same captions get other negatives; invalidates unfinished parts."""


class _Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that determines the negatives."""

    version: int
    tagger: str
    source: str
    source_sha256: str
    split: tuple[str, ...]
    types: tuple[str, ...]
    per_caption: int
    seed: int
    compressed: bool
    keep_captions: str
    negative_columns: tuple[str, ...] = ()
    negative_type: tuple[str, ...] = ()
    fluency_margin: float | None = None


def swap_words(config: SwapWordsConfig) -> None:
    """Write the captions of a list with their word swaps, and the statistics.

    A killed run resumes when started again with the same settings.

    Raises:
        UserError: Missing tagger, unknown type, unreadable or broken list, existing output, disk
            full, output locked by another process.
    """
    types = _check(config)
    settings = _Settings(
        version=VERSION,
        tagger=f"HanTa {version('HanTa')}",
        source=config.captions.name,
        source_sha256=digest_of_captions(config.captions),
        split=tuple(sorted(config.split)),
        types=types,
        per_caption=config.per_caption,
        seed=config.seed,
        compressed=config.out.suffix == ".gz",
        keep_captions=config.keep_captions,
        negative_columns=config.negative_columns,
        negative_type=config.negative_type,
        fluency_margin=config.fluency_margin,
    )
    irregular: Counter[str] = Counter()
    negatives = NegativeColumns(config.negative_columns, config.negative_type)
    images = read_caption_list(config.captions, config.split, irregular, negatives)
    make = partial(_make_chunk, settings, config.captions)
    with only_writer(config.out):
        parts = open_parts(config.out, settings, config.overwrite)
        if parts is None:
            print(f"swap-words: {config.out} already contains these captions; nothing to do")
            return
        write_captions(parts, settings, images, make, config.workers, irregular)


@lru_cache(maxsize=1)
def _fluency(path: Path, settings: _Settings) -> Fluency:
    """Each worker reads the list once, which is less than to send it the models."""
    columns = NegativeColumns(settings.negative_columns, settings.negative_type)
    return Fluency(read_caption_list(path, settings.split, Counter(), columns))


WITHOUT = "captions without a swap"
UNLIKELY = "swaps that are less likely than fluency_margin allows"
"""Reasons why something is left out."""


def image_captions(
    image: ListedImage,
    settings: _Settings,
    irregular: Counter[str],
    fluency: Fluency | None = None,
) -> ImageCaptions:
    """The groups of an image.

    Args:
        image: Its captions.
        settings: How to make negatives.
        irregular: Receives counts of what is left out.
        fluency: Models for ``fluency_margin``.
    """
    groups = []
    known = {plain(caption) for caption in image.captions}
    for caption, listed in zip(image.captions, image.negatives, strict=True):

        def likely(swaps: Iterable[Swap], caption: str = caption) -> Iterable[Swap]:
            if fluency is None:
                return swaps
            found = fluency.gains(image.image_id, caption, list(swaps))
            kept = [one for one in found if one.gain >= -(settings.fluency_margin or 0)]
            irregular[UNLIKELY] += len(found) - len(kept)
            return [one.swap for one in sorted(kept, key=lambda one: -one.gain)]

        rng = random.Random(f"{settings.seed}/{image.image_id}/{caption}")
        found = swap_negatives(
            caption, tag_sentences(caption), settings.types, settings.per_caption, rng, likely
        )
        # Other captions of the image are true; listed negatives take precedence over equal swaps.
        excluded = known | {plain(n.caption) for n in listed}
        negatives = (*listed, *(n for n in found if plain(n.caption) not in excluded))
        if negatives or settings.keep_captions == "all":
            groups.append(CaptionGroup(caption, GROUP_TYPE, negatives))
    irregular[WITHOUT] += len(image.captions) - len(groups)
    return ImageCaptions(image.image_id, tuple(groups))


def _check(config: SwapWordsConfig) -> tuple[str, ...]:
    """Checks before any work starts; returns the types in the table's order."""
    for name in config.types:
        if name not in WORD_SWAPS:
            raise UserError(
                f"types: unknown word swap '{name}'{did_you_mean(name, WORD_SWAPS)}; "
                f"there are {', '.join(WORD_SWAPS)}"
            )
    check_is_list(config.captions)
    check_name(config.out)
    load_tagger()
    return tuple(name for name in WORD_SWAPS if not config.types or name in config.types)


def _make_chunk(settings: _Settings, path: Path, images: list[ListedImage]) -> Chunk:
    """Worker function: captions of a chunk of images."""
    irregular: Counter[str] = Counter()
    fluency = None if settings.fluency_margin is None else _fluency(path, settings)

    def captions_of(image: ListedImage) -> tuple[ImageCaptions, Coverage]:
        captions = image_captions(image, settings, irregular, fluency)
        return captions, coverage_of(None, captions)

    return chunk_of(map(captions_of, images), irregular, settings.compressed)
