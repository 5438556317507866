"""What the model is asked, and the captions in its answer.

A true caption and a false one are reworded by the same prompt, one at a time, so the model does not
know which it has, and its style cannot give the label away. An answer is text and nothing else:
lines of it that are no captions are dropped by whoever parses them. Who changes a prompt raises
VERSION of rewrite.py.
"""

import re
from collections.abc import Iterable

from hnc_ds.captions.language.nouns import CAPITALS
from hnc_ds.captions.rewrite.parsing import LONGEST

TOKENS_A_CAPTION = 48
"""Of an answer; a caption has some fifteen."""
TOKENS_OF_THOUGHT = 64
"""For a line that the model puts before its captions."""

LONGEST_ANSWER = 1 << 14
"""Characters of an answer that are kept."""

_MORE_LINES = 4
"""Lines beside the captions that were asked for: headings, greetings."""

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
"""Of an image in a prompt."""


def reword_prompt(caption: str, count: int) -> str:
    """Asks for a caption in other words."""
    return _REWORD.format(caption=caption, count=count)


def contradict_prompt(caption: str, names: Iterable[str], count: int) -> str:
    """Asks for false captions that differ in one thing.

    Args:
        caption: A true one.
        names: Of the things in the image.
        count: How many.
    """
    some = ", ".join(sorted({*names})[:MOST_NAMES])
    return _CONTRADICT.format(caption=caption, names=some, count=count)


def tokens_of(count: int) -> int:
    """How many tokens an answer of so many captions may have."""
    return count * TOKENS_A_CAPTION + TOKENS_OF_THOUGHT


_MARK = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019 "


def captions_in(answer: str, count: int) -> list[str]:
    """The lines of an answer that may be captions, without marks of lists and quotes.

    Args:
        answer: Whatever the model wrote; what it thought before it (</think>) is left out.
        count: How many captions it was asked for.
    """
    written = answer.rpartition("</think>")[2][:LONGEST_ANSWER]
    lines = (_MARK.sub("", line.strip()).strip(_QUOTES) for line in written.splitlines())
    return [tidy(line) for line in lines if line][: count + _MORE_LINES]


def tidy(line: str) -> str:
    """A line as captions are written: single spaces, a capital, a full stop, straight apostrophes.

    Other capitals stay where they belong to a word, as in 'TV'.
    """
    words = line[: LONGEST + 2].replace("\u2019", "'").rstrip(" .").split()
    text = " ".join(w if w.rstrip(",") in _CAPITALS else w.lower() for w in words)
    return text[:1].upper() + text[1:] + "." if text else ""


_CAPITALS = frozenset(CAPITALS.values())
