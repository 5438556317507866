"""Captions -> tagged words -> noun phrases and the links between them: the grammar of word swaps.

Part-of-speech tags come from HanTa, which is pure Python and includes its English model; nothing is
downloaded. Tags are the BNC's C5 (AJ0 adjective, AT0 article, AV0 adverb, NN1 and NN2 singular and
plural noun, PRP preposition, VVG and VVZ verb in -ing and -s, ...). They depend on the caption
alone: not on earlier captions, the Python version or PYTHONHASHSEED.

There is no parser. Each word, or several that count as one, becomes a unit with a letter for its
class; phrases are patterns of letters; a link holds the words between two successive phrases.
Ambiguous constructions are not swapped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from hnc_ds.captions.language.attribute_classes import classes_of
from hnc_ds.captions.language.nouns import is_countable, is_plural, singular
from hnc_ds.captions.language.predicates import place_of
from hnc_ds.captions.language.symmetric import COMPOUNDS, LISTS, ing_forms, is_mutual, may_act
from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install

LONGEST_WORD = 40
"""Letters; the tagger's time grows with their square."""

_MODEL = "morphmodel_en.pgz"
_APOSTROPHE = "\u2019"
"""The typographic apostrophe."""
_TOKEN = re.compile(rf"\d+(?:[.,:]\d+)*|\w+(?:[-'{_APOSTROPHE}]\w+)*|[^\w\s]")
_SENTENCE_ENDS = frozenset(".!?;")
_ONE_THING = frozenset(("a", "an", "one", "another", "each", "every"))
_BEFORE_NEXT_NOUN = frozenset(("AT0", "DPS", "DT0", "CRD"))
_AFTER_VERB = frozenset(("PRP", "AVP", "AV0"))


class Word(NamedTuple):
    """A word or punctuation mark of a caption."""

    text: str
    """As written."""
    lemma: str
    tag: str
    """A tag of C5."""
    start: int
    """Offset in the caption, in characters."""


def tag_sentences(caption: str) -> list[list[Word]]:
    """The tagged words of a caption, sentence by sentence.

    Sentences with a word of more than LONGEST_WORD letters are left out.

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
        sentences.append(corrected(words))
    return sentences


@lru_cache(maxsize=1)
def load_tagger() -> Any:
    """The tagger, loaded once in a process.

    Raises:
        UserError: It is not installed.
    """
    try:
        return import_module("HanTa.HanoverTagger").HanoverTagger(_MODEL)
    except ImportError as error:
        raise UserError(
            f"swap-words: needs the tagger HanTa ({error}); {pip_install('negclip')}"
        ) from error


def _sentences(caption: str) -> list[list[tuple[str, int]]]:
    sentences: list[list[tuple[str, int]]] = [[]]
    for match in _TOKEN.finditer(caption):
        sentences[-1] += _without_clitic(match[0], match.start())
        if match[0] in _SENTENCE_ENDS:
            sentences.append([])
    return [tokens for tokens in sentences if tokens]


def _without_clitic(token: str, start: int) -> list[tuple[str, int]]:
    """'woman's' -> 'woman', ''s': as in the tagger's training text."""
    if token[-2:].lower() in ("'s", f"{_APOSTROPHE}s") and len(token) > 2:
        return [(token[:-2], start), (token[-2:], start + len(token) - 2)]
    return [(token, start)]


def _as_written_in_prose(texts: Sequence[str]) -> list[str]:
    """Lowercase words of a caption in title case: the tagger takes capitals for names."""
    words = [text for text in texts if text[0].isalpha()]
    if len(words) > 2 and sum(word[0].isupper() for word in words) > len(words) / 2:
        return [text.lower() for text in texts]
    return [text.replace(_APOSTROPHE, "'") for text in texts]


def corrected(words: list[Word]) -> list[Word]:
    """Correct the tagger's one frequent mistake on captions.

    In 'A girl brushes the mane' it tags the verb as a plural, which cannot follow 'a'.
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


_LETTERS = {
    tag: letter
    for letter, tags in {
        "D": "AT0 DT0",
        "S": "DPS",
        "C": "CRD ORD",
        "A": "AJ0 AJC AJS",
        "R": "AV0",
        "N": "NN0 NN1 NN2",
        "M": "NP0",
        "V": "VVG VVZ VVB VVI",
        "W": "VVN VVD",
        "B": "VBB VBD VBG VBI VBN VBZ",
        "H": "VHB VHD VHG VHI VHN VHZ",
        "P": "PRP PRF AVP",
        "J": "CJC",
        "K": "CJS CJT AVQ PNQ DTQ",
        "T": "POS",
    }.items()
    for tag in tags.split()
}
"""Tag -> Determiner, poSsessive, Count, Adjective, adveRb, Noun, naMe, Verb, Wrought (past
participle), Be, Have, Place, Join, clause (K), genitive mark (T); besides Fixed and Other."""

_MULTIWORD = {
    **{tuple(text.split()): "N" for text in sorted(COMPOUNDS)},
    **{tuple(text.split()): "D" for text in LISTS.quantities},
    **{tuple(text.split()): "P" for text in LISTS.places_of_several_words},
    **{tuple(text.split()): "F" for text in LISTS.fixed},
}
_LONGEST = max(map(len, _MULTIWORD))


class Span(NamedTuple):
    """Words start .. end - 1 of a sentence."""

    start: int
    end: int


class Unit(NamedTuple):
    """A word, or several that count as one, and the letter of its class."""

    letter: str
    span: Span


def units_of(words: Sequence[Word]) -> list[Unit]:
    """The units of a sentence, in order."""
    texts = [word.text.lower() for word in words]
    units: list[Unit] = []
    start = 0
    while start < len(words):
        length, letter = _several(texts, start) or (1, _letter(words, start))
        units.append(Unit(letter, Span(start, start + length)))
        start += length
    return _with_joined_adjectives(texts, units)


def _several(texts: list[str], start: int) -> tuple[int, str] | None:
    for length in range(min(_LONGEST, len(texts) - start), 1, -1):
        if letter := _MULTIWORD.get(tuple(texts[start : start + length])):
            return length, letter
    return None


def _letter(words: Sequence[Word], index: int) -> str:
    word, text = words[index], words[index].text.lower()
    if text in LISTS.joining:
        return "J"
    if _is_colour(words, index):
        return "O"
    if not text[0].isalnum() and word.tag != "POS":
        return "O"  # a punctuation mark that the tagger takes for a noun
    return _LETTERS.get(word.tag, "O")


def _is_colour(words: Sequence[Word], index: int) -> bool:
    """Whether a noun is a colour: 'in white', but not 'an orange'."""
    if words[index].tag != "NN1":
        return False
    before = words[index - 1].tag if index else ""
    after = words[index + 1].tag if index + 1 < len(words) else ""
    alone = not before.startswith(("AT", "AJ", "DT", "DP", "NN")) and not after.startswith(
        ("NN", "AJ")
    )
    return alone and any(cls.name == "colour" for cls in classes_of(words[index].text.lower()))


def _with_joined_adjectives(texts: list[str], units: list[Unit]) -> list[Unit]:
    """Join 'black and white' and 'light blue' into one adjective each, before a noun."""
    joined: list[Unit] = []
    for unit, following in zip(units, [*units[1:], None], strict=True):
        letters = "".join(u.letter for u in joined[-2:])
        if unit.letter == "A" and following and following.letter in "AN":
            if letters == "AJ" and texts[joined[-1].span.start] in ("and", "&"):
                joined[-2:] = [Unit("A", Span(joined[-2].span.start, unit.span.end))]
                continue
            if letters.endswith("A") and texts[joined[-1].span.start] in LISTS.light_or_dark:
                joined[-1] = Unit("A", Span(joined[-1].span.start, unit.span.end))
                continue
        joined.append(unit)
    return joined


def text_of(words: Sequence[Word], span: Span) -> str:
    """Lowercase words with single spaces."""
    return " ".join(word.text.lower() for word in words[span.start : span.end])


_PHRASE = re.compile(r"D*S?[CD]*(?:R?A|M)*N+(?:[AW]N+)*")
_UNCLEAR = re.compile(r"N[AW]|M|R")

_PARTICIPLES = frozenset(("VVN", "VVD"))
_OF_PARTICIPLES = frozenset(("with", "by", "to"))
"""Prepositions that mean something else after a participle: 'covered with', 'walking with'."""

_FINITE = frozenset("VVZ VVB VBZ VBB VBD VHZ VHB VHD VDZ VDB VDD".split())
_INFINITIVE = frozenset("TO0 VM0 VDB VDD VDG VDI VDN VDZ".split())
"""Tags shortly before an infinitive; without one the tagger has taken a verb in the plural for it:
'Two boys fight'."""
_ONE = frozenset(("a", "an", "one", "another", "each", "every", "this", "that"))
_MANY = frozenset(("several", "many", "few", "both", "these", "those"))


@dataclass(frozen=True)
class Phrase:
    """A noun phrase."""

    span: Span
    nouns: Span
    """Its noun with preceding nouns: 'tennis racket'."""
    head: str
    """``nouns`` in lowercase."""
    adjectives: tuple[Span, ...]
    """'black and white' counts as one."""
    determiner: str
    """The first one; '' if there is none."""
    plural: bool | None
    """None if its words disagree, or a verb could be singular or plural (a group of people)."""
    counted: bool
    """Whether it contains a number above one."""
    bound: bool
    """A possessor or possession, 'the lid' of something, or with a shared article: not swapped."""
    unclear: bool
    """Of ambiguous structure, or split by a wrong tag."""
    measured: bool = False
    """'a cup of tea': ``span`` covers all of it, the other fields describe 'tea'."""


@dataclass(frozen=True)
class Link:
    """The words between two successive phrases."""

    verbs: tuple[Word, ...]
    place: str
    """The preposition before the right phrase: 'in front of'."""
    joint: str
    """'and', 'while': the right phrase starts a new clause; verbs and place belong to the left."""
    mutual: bool
    """Whether the relation may be symmetric."""
    only_place: bool
    """Whether it states a location and no action."""


@dataclass(frozen=True)
class Sentence:
    """A parsed sentence; ``links[i]`` is between phrases i and i + 1."""

    words: tuple[Word, ...]
    units: tuple[Unit, ...]
    phrases: tuple[Phrase, ...]
    links: tuple[Link, ...]
    last_verbs: tuple[Word, ...]
    """Verbs after the last phrase."""

    @property
    def finite(self) -> bool:
        """Whether a verb agrees with the number of its subject."""
        tags = [word.tag for word in self.words]
        return any(
            tag in _FINITE or (tag == "VVI" and _INFINITIVE.isdisjoint(tags[max(0, n - 3) : n]))
            for n, tag in enumerate(tags)
        )

    def text(self, span: Span) -> str:
        """Lowercase words with single spaces."""
        return text_of(self.words, span)


def is_bare(phrase: Phrase) -> bool:
    """Whether the article is missing: 'man in black shirt'."""
    return not (phrase.determiner or phrase.counted or phrase.plural) and is_countable(phrase.head)


def parse(words: Sequence[Word]) -> Sentence:
    """Phrases and links of a tagged sentence."""
    units = units_of(words)
    letters = "".join(unit.letter for unit in units)
    pieces = [Span(*match.span()) for match in _PHRASE.finditer(letters)]
    phrases = [_phrase(words, units, letters, piece) for piece in pieces]
    _mark_adjacent(letters, pieces, phrases)
    _join_measures(words, units, pieces, phrases)
    links = [
        _link(words, units[left.end : right.start], one, other)
        for left, right, one, other in zip(pieces, pieces[1:], phrases, phrases[1:], strict=False)
    ]
    rest = units[pieces[-1].end :] if pieces else []
    return Sentence(tuple(words), tuple(units), tuple(phrases), tuple(links), _verbs(words, rest))


def _phrase(words: Sequence[Word], units: list[Unit], letters: str, piece: Span) -> Phrase:
    inside, pattern = units[piece.start : piece.end], letters[piece.start : piece.end]
    nouns = Span(inside[len(pattern.rstrip("N"))].span.start, inside[-1].span.end)
    head = text_of(words, nouns)
    counts = [text_of(words, unit.span) for unit in inside if unit.letter == "C"]
    counted = any(count != "one" for count in counts)
    determiners = [text_of(words, unit.span) for unit in inside if unit.letter in "DS"]
    determiner = determiners[0] if determiners else ""
    return Phrase(
        span=Span(inside[0].span.start, inside[-1].span.end),
        nouns=nouns,
        head=head,
        adjectives=tuple(unit.span for unit in inside if unit.letter == "A"),
        determiner=determiner,
        plural=_number(words[nouns.end - 1].tag, head, determiner, counted),
        counted=counted,
        bound="S" in pattern or "T" in letters[max(piece.start - 1, 0) : piece.end + 1],
        unclear=bool(_UNCLEAR.search(pattern)),
    )


def _number(tag: str, head: str, determiner: str, counted: bool) -> bool | None:
    """Whether a phrase is plural by its determiner and noun; None if they disagree."""
    shown = is_plural(head)
    if counted or determiner in _MANY:
        return True if shown or tag == "NN0" else None
    if determiner in _ONE:
        return None if shown else False
    return None if tag == "NN0" and not shown else shown


def _mark_adjacent(letters: str, pieces: list[Span], phrases: list[Phrase]) -> None:
    """Mark adjacent phrases, which may be one, and shared articles: 'a jacket and scarf'."""
    for index in range(1, len(pieces)):
        between = letters[pieces[index - 1].end : pieces[index].start]
        left, right = phrases[index - 1], phrases[index]
        shared = between == "J" and is_bare(right) and not is_bare(left)
        for place in (index - 1, index):
            old = phrases[place]
            phrases[place] = replace(
                old, bound=old.bound or shared, unclear=old.unclear or not between
            )


def _join_measures(
    words: Sequence[Word], units: list[Unit], pieces: list[Span], phrases: list[Phrase]
) -> None:
    """Join 'a cup', 'of', 'tea' into one phrase; any other noun before 'of' is bound."""
    for index in reversed(range(len(pieces))):
        end = pieces[index].end
        if end == len(units) or text_of(words, units[end].span) != "of":
            continue
        following = index + 1 < len(pieces) and pieces[index + 1].start == end + 1
        if following and singular(phrases[index].head.rsplit(" ", 1)[-1]) in LISTS.measure_nouns:
            whole, part = phrases[index], phrases.pop(index + 1)
            phrases[index] = _measured(whole, part)
            pieces[index] = Span(pieces[index].start, pieces.pop(index + 1).end)
        else:
            phrases[index] = replace(phrases[index], bound=True)


def _measured(measure: Phrase, part: Phrase) -> Phrase:
    several = part.plural is not False and not measure.plural
    return replace(
        part,
        span=Span(measure.span.start, part.span.end),
        determiner=measure.determiner,
        plural=None if several else measure.plural,
        bound=measure.bound or part.bound,
        unclear=measure.unclear or part.unclear or bool(measure.adjectives),
        measured=True,
    )


def _link(words: Sequence[Word], between: list[Unit], left: Phrase, right: Phrase) -> Link:
    own, joint = _split(words, between)
    verbs = _verbs(words, own)
    letters = "".join(unit.letter for unit in own)
    places = [u.span for u in own[max(map(letters.rfind, "VWH")) + 1 :] if u.letter == "P"]
    place = text_of(words, places[-1]) if places else ""
    only_place = _states_place(verbs, place)
    mutual = not (joint or verbs or place) or _is_mutual(
        verbs, place, may_act(left.head) and may_act(right.head)
    )
    return Link(verbs, place, joint, mutual and not joint, only_place)


def _split(words: Sequence[Word], between: list[Unit]) -> tuple[list[Unit], str]:
    """Split a link: the units with its verbs and place, and the word that starts a new clause."""
    joints = [index for index, unit in enumerate(between) if unit.letter in "JK"]
    if not joints:
        return between, ""
    if joints[-1] < len(between) - 1:  # 'and hitting', 'that is showing'
        return between[joints[-1] + 1 :], ""
    return between[: joints[0]], text_of(words, between[-1].span)


def _verbs(words: Sequence[Word], units: Sequence[Unit]) -> tuple[Word, ...]:
    return tuple(words[unit.span.start] for unit in units if unit.letter in "VWH")


def _states_place(verbs: tuple[Word, ...], place: str) -> bool:
    if not verbs:
        return bool(place)
    forms = (verbs[-1].text.lower(), *ing_forms(verbs[-1].lemma))
    return bool(place) and any(place_of(f"{form} {place}") == place for form in forms)


def _is_mutual(verbs: tuple[Word, ...], place: str, both_may_act: bool) -> bool:
    if not verbs:
        return is_mutual(place, both_may_act)
    forms = (verbs[-1].text.lower(), *ing_forms(verbs[-1].lemma))
    predicates = [f"{form} {place}".strip() for form in forms]
    if place and not (place in _OF_PARTICIPLES and verbs[-1].tag in _PARTICIPLES):
        predicates.append(place)
    return any(is_mutual(predicate, both_may_act) for predicate in predicates)
