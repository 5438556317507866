"""Whether a caption still says the same when two of its noun phrases have changed places.

'A man walks with a dog' does, and 'a cup and a plate'; so may 'A man sits on a bench next to a
woman', because she sits there, too. Where links do not tell, the answer is that nothing changes.
"""

from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.symmetric import LISTS, adjectives_alike, same_thing, verbs_alike
from hnc_ds.captions.words.phrases import Link, Phrase, Sentence
from hnc_ds.captions.words.tagging import Word

_Told = tuple[tuple[Word, ...], str, str]
"""Verbs, place and object."""


def changes_meaning(s: Sentence, i: int, j: int) -> bool:
    """Whether phrases i and j, i before j, cannot change places without saying something else."""
    last = s.links[j - 1]
    if last.joint:
        return _tell_different_things(s, i, j)
    if last.mutual:
        return False
    return not (_stand_alike(s, i, j) or _told_either_way(s, i, j))


def told_apart(s: Sentence, one: Phrase, other: Phrase) -> bool:
    """Whether adjectives or numbers differ, so that exchanging the nouns alone says something else.

    'A white cat and a black dog' is not 'a white dog and a black cat'.
    """
    if one.counted != other.counted or (one.counted and _count(s, one) != _count(s, other)):
        return True
    ours, theirs = (sorted(map(s.text, phrase.adjectives)) for phrase in (one, other))
    return bool(ours or theirs) and not any(adjectives_alike(a, b) for a in ours for b in theirs)


def _count(s: Sentence, phrase: Phrase) -> str:
    return s.words[phrase.span.start].text.lower()


def _tell_different_things(s: Sentence, i: int, j: int) -> bool:
    """Of 'A boy throws a ball while a dog sleeps', what the boy and the dog do."""
    ours, theirs = _told(s, i), _told(s, j)
    if not any(ours) or not any(theirs):
        return False
    same_verbs = _verbs_alike(ours[0], theirs[0])
    return not (same_verbs and ours[1] == theirs[1] and _same_noun(ours[2], theirs[2]))


def _told(s: Sentence, i: int) -> _Told:
    """What is said of phrase i by what follows it."""
    if i == len(s.links):
        return s.last_verbs, "", ""
    link = s.links[i]
    return link.verbs, link.place, "" if link.joint else s.phrases[i + 1].head


def _stand_alike(s: Sentence, i: int, j: int) -> bool:
    """Whether the same was said before i and j of one thing: 'on a chair and on a table'."""
    before = i - 1
    while before >= 0 and s.links[before].joint:
        before -= 1
    if before < 0:
        return False
    new_subject = any(link.joint for link in s.links[i : j - 1])
    if new_subject and not same_thing(s.phrases[before].head, s.phrases[j - 1].head):
        return False
    return _links_alike(s.links[before], s.links[j - 1])


def _told_either_way(s: Sentence, i: int, j: int) -> bool:
    """'riding a wave on a surfboard', 'on skis in the snow': one scene, told in another way."""
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


def _same_noun(head: str, other: str) -> bool:
    return head == other or bool(head and other and same_thing(head, other))
