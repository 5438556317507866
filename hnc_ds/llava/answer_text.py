"""What the official scorers do to an answer before they compare it, their oddities included.

Source: vqaEval.py of VQA (GT-Vision-Lab/VQA, revision a013f00), m4c_evaluators.py of MMF. Both have
the same tables; contractions.json holds those of their contractions that can apply.
"""

import json
import re
from functools import cache
from pathlib import Path

MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@")
PUNCTUATION = (*MARKS, "`", ",", "?", "!")
"""In their order. Not among them: ' : . $ % & # * ~ | ^"""

NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
ARTICLES = frozenset({"a", "an", "the"})
CONTRACTIONS: dict[str, str] = json.loads(
    (Path(__file__).parent / "contractions.json").read_text(encoding="utf-8")
)

MOST_PERIODS = 32
"""Their code hands re.UNICODE, which is 32, where the most replacements are meant."""

_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # their look-behind is misspelt and always true


def clean(text: str) -> str:
    """Without line breaks, tabs, and blanks around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@cache
def normalise(text: str) -> str:
    """VQA's processing of a cleaned answer: marks, periods, numbers, articles, contractions."""
    return _without_articles(_without_marks(text))


@cache
def normalise_m4c(text: str) -> str:
    """M4C's, which TextVQA and LLaVA's own evaluation use: VQA's, after other changes."""
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(clean(plain.strip()))


def _without_marks(text: str) -> str:
    everywhere = _DIGIT_COMMA.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        apart = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if apart or everywhere else " ")
    return _PERIOD.sub("", found, count=MOST_PERIODS)


def _without_articles(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
