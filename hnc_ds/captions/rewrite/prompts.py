"""The prompts, and the captions in the model's answers.

One prompt rewords true and false captions, one at a time, so the model does not know the label and
its style cannot reveal it. Lines of an answer that are no captions fail to parse later and are
dropped. A change of a prompt requires a new VERSION in rewrite.py.
"""

import re
from collections.abc import Iterable

from hnc_ds.captions.language.nouns import CAPITALS
from hnc_ds.captions.rewrite.parsing import LONGEST

TOKENS_A_CAPTION = 48
"""Token budget of a caption; one has about fifteen."""
TOKENS_OF_THOUGHT = 64
"""Token budget for a line before the captions."""

LONGEST_ANSWER = 1 << 14
"""Maximum characters of an answer."""

_MORE_LINES = 4
"""Allowance for further lines: headings, greetings."""

_REWORD = """\
Write the caption of an image in other words. Keep exactly what it says: the same things by the
same names, the same adjectives, the same relation. Say it from the other side (above and below,
left and right, "worn by"), in another order, with "There is", or with another form of the verb.
Add nothing, leave nothing out, and do not mention the image. Write {count} different captions, a
line each, and nothing else.

Caption: The man is wearing the hat.
The hat is worn by the man.
There is a man wearing the hat.
A man wears the hat.

Caption: The red star is above the ring.
The ring is below the red star.
Above the ring is the red star.
There is a red star above the ring.

Caption: {caption}
"""

_CONTRADICT = """\
This caption is true of an image. Write {count} captions that are false of it, a line each, and
nothing else. Take the caption as it is and change one thing: put another adjective of the same
kind (red: blue), another thing that is there, another number or another relation, or let two
things change places. Use only these things: {names}.

Caption: The man is wearing the red hat.
The man is wearing the blue hat.
The man is holding the red hat.

Caption: {caption}
"""

MOST_NAMES = 24
"""Maximum number of names of things in a prompt."""


def reword_prompt(caption: str, count: int) -> str:
    """The prompt for ``count`` rewordings of a caption."""
    return _REWORD.format(caption=caption, count=count)


def contradict_prompt(caption: str, names: Iterable[str], count: int) -> str:
    """The prompt for false captions that differ in one thing.

    Args:
        caption: A true caption.
        names: Names of the things in the image.
        count: Number of captions.
    """
    some = ", ".join(sorted({*names})[:MOST_NAMES])
    return _CONTRADICT.format(caption=caption, names=some, count=count)


def tokens_of(count: int) -> int:
    """Maximum number of tokens of an answer with ``count`` captions."""
    return count * TOKENS_A_CAPTION + TOKENS_OF_THOUGHT


_MARK = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019 "


def captions_in(answer: str, count: int) -> list[str]:
    """The lines of an answer that may be captions, without list markers and quotes.

    Args:
        answer: The model's text; reasoning up to </think> is dropped.
        count: Number of requested captions.
    """
    written = answer.rpartition("</think>")[2][:LONGEST_ANSWER]
    lines = (_MARK.sub("", line.strip()).strip(_QUOTES) for line in written.splitlines())
    return [tidy(line) for line in lines if line][: count + _MORE_LINES]


def tidy(line: str) -> str:
    """Normalise a caption: single spaces, initial capital, full stop, straight apostrophes.

    Other capitals stay only in words such as 'TV'.
    """
    words = line[: LONGEST + 2].replace("\u2019", "'").rstrip(" .").split()
    text = " ".join(w if w.rstrip(",") in _CAPITALS else w.lower() for w in words)
    return text[:1].upper() + text[1:] + "." if text else ""


_CAPITALS = frozenset(CAPITALS.values())
