"""A caption with two of its parts exchanged: spacing, capitals and articles put right."""

from collections.abc import Sequence
from itertools import pairwise

from hnc_ds.captions.language.wording import indefinite
from hnc_ds.captions.words.phrases import Sentence
from hnc_ds.captions.words.tagging import Word
from hnc_ds.captions.words.units import Span


def exchanged(caption: str, sentence: Sentence, one: Span, other: Span) -> str:
    """The caption in which two parts of a sentence stand in each other's place.

    Args:
        caption: All of it.
        sentence: The sentence of it in which the parts are.
        one: The part further in front.
        other: The part further behind; they do not overlap.
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
    """What follows each word: inside of a part its own spaces, at its end those of the place."""
    gaps = {
        index: caption[left.start + len(left.text) : right.start]
        for index, (left, right) in enumerate(pairwise(words))
    }
    gaps[len(words) - 1] = ""
    gaps[one.end - 1], gaps[other.end - 1] = gaps[other.end - 1], gaps[one.end - 1]
    return gaps


def _with_capital(words: Sequence[Word], order: list[int], texts: list[str]) -> list[str]:
    """The sentence starts as it did; what has left its start is written small."""
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
    """'a' or 'an' by the word that follows now."""
    for place, index in enumerate(order[:-1]):
        article = words[index].text.lower()
        same = index + 1 == order[place + 1]
        if article in ("a", "an") and words[index].tag == "AT0" and not same:
            # With a noun behind it, so that it is put as an adjective is.
            right = indefinite(f"{texts[place + 1].lower()} thing").split(" ", 1)[0]
            texts[place] = _cased_like(texts[place], right, _is_shouted(words))
    return texts


def _cased_like(pattern: str, text: str, shouted: bool) -> str:
    if shouted:
        return text.upper()
    return text.capitalize() if pattern[0].isupper() else text
