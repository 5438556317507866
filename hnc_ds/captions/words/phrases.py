"""Tagged words -> noun phrases and what links them: as much grammar as word swaps need.

No parser: phrases are found by patterns of tags, and a link is what stands between two phrases that
follow each other. Where that does not tell what belongs to what, nothing is swapped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hnc_ds.captions.language.nouns import is_countable, is_plural, singular
from hnc_ds.captions.language.predicates import place_of
from hnc_ds.captions.language.symmetric import LISTS, ing_forms, is_mutual, may_act
from hnc_ds.captions.words.tagging import Word
from hnc_ds.captions.words.units import Span, Unit, text_of, units_of

_PHRASE = re.compile(r"D*S?[CD]*(?:R?A|M)*N+(?:[AW]N+)*")
_UNCLEAR = re.compile(r"N[AW]|M|R")

_PARTICIPLES = frozenset(("VVN", "VVD"))
_OF_PARTICIPLES = frozenset(("with", "by", "to"))
"""Mean something else after them: 'covered with', but 'walking with'."""

_FINITE = frozenset("VVZ VVB VBZ VBB VBD VHZ VHB VHD VDZ VDB VDD".split())
_ONE = frozenset(("a", "an", "one", "another", "each", "every", "this", "that"))
_MANY = frozenset(("several", "many", "few", "both", "these", "those"))


@dataclass(frozen=True)
class Phrase:
    """A noun phrase."""

    span: Span
    nouns: Span
    """Its noun with the nouns before it: 'tennis racket'."""
    head: str
    """The same in small letters."""
    adjectives: tuple[Span, ...]
    """'black and white' is one."""
    determiner: str
    """Its first; '' if there is none."""
    plural: bool | None
    """None where its words do not agree, or a verb might go either way (a group of people)."""
    counted: bool
    """Whether a number above one stands in it."""
    bound: bool
    """Owns, is owned, is 'the lid' of something, or shares an article: does not change places."""
    unclear: bool
    """Built in a way that hides what its words are to each other, or cut in two by the tagger."""
    measured: bool = False
    """'a cup of tea': ``span`` is all of it, the rest is about tea."""


@dataclass(frozen=True)
class Link:
    """What stands between two phrases that follow each other."""

    verbs: tuple[Word, ...]
    place: str
    """The preposition before the right phrase: 'in front of'."""
    joint: str
    """'and', 'while': the right phrase starts anew, and verbs and place are the left one's own."""
    mutual: bool
    """Whether it may hold from right to left as well."""
    only_place: bool
    """Whether it says where something is and not what it does."""


@dataclass(frozen=True)
class Sentence:
    """A sentence with its phrases in order; ``links[i]`` is between phrases i and i + 1."""

    words: tuple[Word, ...]
    units: tuple[Unit, ...]
    phrases: tuple[Phrase, ...]
    links: tuple[Link, ...]
    last_verbs: tuple[Word, ...]
    """After the last phrase."""

    @property
    def finite(self) -> bool:
        """Whether a verb shows the number of its subject."""
        return any(word.tag in _FINITE for word in self.words)

    def text(self, span: Span) -> str:
        """Words in small letters, with single spaces."""
        return text_of(self.words, span)


def is_bare(phrase: Phrase) -> bool:
    """Whether an article is missing: 'man in black shirt'."""
    return not (phrase.determiner or phrase.counted or phrase.plural) and is_countable(phrase.head)


def parse(words: Sequence[Word]) -> Sentence:
    """Phrases and links of a tagged sentence."""
    units = units_of(words)
    letters = "".join(unit.letter for unit in units)
    pieces = [Span(*match.span()) for match in _PHRASE.finditer(letters)]
    phrases = [_phrase(words, units, letters, piece) for piece in pieces]
    _mark_torn(letters, pieces, phrases)
    _join_measures(words, units, pieces, phrases)
    links = [
        _link(words, units[left.end : right.start], one, other)
        for left, right, one, other in zip(pieces, pieces[1:], phrases, phrases[1:], strict=False)
    ]
    rest = units[pieces[-1].end :] if pieces else []
    return Sentence(tuple(words), tuple(units), tuple(phrases), tuple(links), _verbs(words, rest))


def _phrase(words: Sequence[Word], units: list[Unit], letters: str, piece: Span) -> Phrase:
    inside, own = units[piece.start : piece.end], letters[piece.start : piece.end]
    nouns = Span(inside[len(own.rstrip("N"))].span.start, inside[-1].span.end)
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
        bound="S" in own or "T" in letters[max(piece.start - 1, 0) : piece.end + 1],
        unclear=bool(_UNCLEAR.search(own)),
    )


def _number(tag: str, head: str, determiner: str, counted: bool) -> bool | None:
    """Whether a phrase is plural, as its determiner and its noun say; None if they disagree."""
    shown = is_plural(head)
    if counted or determiner in _MANY:
        return True if shown or tag == "NN0" else None
    if determiner in _ONE:
        return None if shown else False
    return None if tag == "NN0" and not shown else shown


def _mark_torn(letters: str, pieces: list[Span], phrases: list[Phrase]) -> None:
    """Phrases side by side may be one, and 'a jacket and scarf' share an article."""
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
    """'a cup', 'of', 'tea' become one phrase; any other noun before 'of' is bound."""
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
    says_place = _says_place(verbs, place)
    mutual = not (joint or verbs or place) or _is_mutual(
        verbs, place, may_act(left.head) and may_act(right.head)
    )
    return Link(verbs, place, joint, mutual and not joint, says_place)


def _split(words: Sequence[Word], between: list[Unit]) -> tuple[list[Unit], str]:
    """The part of a link that has its verbs and place, and the word for a new start at its end."""
    joints = [index for index, unit in enumerate(between) if unit.letter in "JK"]
    if not joints:
        return between, ""
    if joints[-1] < len(between) - 1:  # 'and hitting', 'that is showing'
        return between[joints[-1] + 1 :], ""
    return between[: joints[0]], text_of(words, between[-1].span)


def _verbs(words: Sequence[Word], units: Sequence[Unit]) -> tuple[Word, ...]:
    return tuple(words[unit.span.start] for unit in units if unit.letter in "VWH")


def _says_place(verbs: tuple[Word, ...], place: str) -> bool:
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
