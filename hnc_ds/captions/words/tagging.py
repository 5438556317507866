"""Captions as tagged words, by HanTa: pure Python, with its English model inside the package.

Tags are the BNC's C5 (AJ0 adjective, AT0 article, AV0 adverb, NN1 and NN2 singular and plural noun,
PRP preposition, VVG and VVZ verb in -ing and -s, ...). Nothing is downloaded. The same caption gets
the same tags whatever came before it, in every Python and for every PYTHONHASHSEED.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from hnc_ds.errors import UserError

LONGEST_WORD = 40
"""Letters; the tagger's time grows with the square of them."""

_MODEL = "morphmodel_en.pgz"
_APOSTROPHE = "\u2019"
"""As typographers write it."""
_TOKEN = re.compile(rf"\d+(?:[.,:]\d+)*|\w+(?:[-'{_APOSTROPHE}]\w+)*|[^\w\s]")
_SENTENCE_ENDS = frozenset(".!?;")
_ONE_THING = frozenset(("a", "an", "one", "another", "each", "every"))
_BEFORE_NEXT_NOUN = frozenset(("AT0", "DPS", "DT0", "CRD"))
_AFTER_VERB = frozenset(("PRP", "AVP", "AV0"))


class Word(NamedTuple):
    """A word or a mark of a caption."""

    text: str
    """As it stands there."""
    lemma: str
    tag: str
    """Of C5."""
    start: int
    """Where it stands in the caption, in characters."""


def tag_sentences(caption: str) -> list[list[Word]]:
    """The tagged words of a caption, sentence by sentence.

    Sentences with a word that is too long for the tagger are left out.

    Raises:
        UserError: The tagger is not installed.
    """
    sentences: list[list[Word]] = []
    for tokens in _sentences(caption):
        texts = [text for text, _ in tokens]
        if max(map(len, texts)) > LONGEST_WORD:
            continue
        tagged = load_tagger().tag_sent(_as_written_in_prose(texts))
        words = [
            Word(text, lemma.lower(), tag, start)
            for (text, start), (_, lemma, tag) in zip(tokens, tagged, strict=True)
        ]
        sentences.append(mended(words))
    return sentences


@lru_cache(maxsize=1)
def load_tagger() -> Any:
    """The tagger, once in a process.

    Raises:
        UserError: It is not installed.
    """
    try:
        return import_module("HanTa.HanoverTagger").HanoverTagger(_MODEL)
    except ImportError as error:
        raise UserError(
            f"swap-words: needs the tagger HanTa ({error}); pip install 'hnc-ds[negclip]' brings it"
        ) from error


def _sentences(caption: str) -> list[list[tuple[str, int]]]:
    sentences: list[list[tuple[str, int]]] = [[]]
    for match in _TOKEN.finditer(caption):
        sentences[-1] += _without_clitic(match[0], match.start())
        if match[0] in _SENTENCE_ENDS:
            sentences.append([])
    return [tokens for tokens in sentences if tokens]


def _without_clitic(token: str, start: int) -> list[tuple[str, int]]:
    """'woman's' -> 'woman', ''s': as in the text that the tagger learned from."""
    if token[-2:].lower() in ("'s", f"{_APOSTROPHE}s") and len(token) > 2:
        return [(token[:-2], start), (token[-2:], start + len(token) - 2)]
    return [(token, start)]


def _as_written_in_prose(texts: Sequence[str]) -> list[str]:
    """Small letters where the caption has capitals all over, for capitals mean names."""
    words = [text for text in texts if text[0].isalpha()]
    if len(words) > 2 and sum(word[0].isupper() for word in words) > len(words) / 2:
        return [text.lower() for text in texts]
    return [text.replace(_APOSTROPHE, "'") for text in texts]


def mended(words: list[Word]) -> list[Word]:
    """The words with the tagger's one frequent mistake on captions put right.

    In 'A girl brushes the mane' it takes the verb for a plural; but after 'a' there is no plural.
    """
    for index in range(1, len(words) - 1):
        word, following = words[index], words[index + 1]
        if word.tag != "NN2" or not word.text.lower().endswith("s"):
            continue
        if following.tag in _BEFORE_NEXT_NOUN | _AFTER_VERB and _is_one_thing(words, index):
            words[index] = word._replace(tag="VVZ")
    return words


def _is_one_thing(words: list[Word], end: int) -> bool:
    """Whether the words before ``end`` are a whole phrase for one thing: 'a tennis player'."""
    if not words[end - 1].tag.startswith("NN"):
        return False
    start = end
    while start and words[start - 1].tag in ("NN1", "NN0", "AJ0"):
        start -= 1
    return start > 0 and words[start - 1].text.lower() in _ONE_THING
