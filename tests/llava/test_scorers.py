"""The official scorers, every oddity of theirs in a row that names it."""

from fractions import Fraction

import pytest

from hnc_ds.llava.scorers import MOST_PERIODS, SCORERS, leave_one_out, normalise, normalise_m4c

TEN = 10


def people(*answers: str) -> list[str]:
    """Ten answers: those given, and 'other' for the rest."""
    return [*answers, *["other"] * (TEN - len(answers))]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("a mark with a blank beside it is deleted", "red, white", "red white"),
        ("any other mark becomes a blank", "x-y", "x y"),
        ("whether it stands beside a blank is looked up in the text as it was", "a-b- c", "ab c"),
        ("a comma between digits deletes every mark", "5,000 x-y", "5000 xy"),
        ("a comma between letters becomes a blank", "red,white", "red white"),
        ("marks that are none of the 21 stay", "50% $5 #1 & *", "50% $5 #1 & *"),
        ("an apostrophe stays", "men's", "men's"),
        ("a colon stays", "4:30", "4:30"),
        ("a period before a digit stays", "2.5", "2.5"),
        ("a period not before a digit goes, digits before it or not", "2. end.", "2 end"),
        ("no more than 32 periods go", "." * 40, "." * (40 - MOST_PERIODS)),
        ("letters become small", "YES", "yes"),
        ("number words become digits", "none zero one ten", "0 0 1 10"),
        ("eleven is no number word", "eleven", "eleven"),
        ("numbers are read word by word", "twenty one", "twenty 1"),
        ("articles go", "a cat and the dog", "cat and dog"),
        ("an answer that is an article is empty", "A", ""),
        ("contractions get their apostrophe", "dont", "don't"),
        ("they are looked up after letters became small, so 'Im' is none", "Im", "im"),
        ("one entry of theirs is turned round", "somebody'd", "somebodyd"),
        ("a curly apostrophe is no apostrophe", "don\u2019t", "don\u2019t"),
        ("blanks are one", "  two   dogs ", "2 dogs"),
    ],
)
def test_vqa_normalises_answers_by_each_rule(rule: str, text: str, expected: str) -> None:
    assert normalise(text) == expected, rule


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("commas go first, so none is between digits", "5,000 x-y", "5000 x y"),
        ("so letters at a comma grow together", "red,white", "redwhite"),
        ("question marks go", "why?", "why"),
        ("an s after an apostrophe stands alone", "men's", "men 's"),
        ("line breaks are blanks", "one\ntwo", "1 2"),
    ],
)
def test_m4c_normalises_answers_before_scoring(rule: str, text: str, expected: str) -> None:
    assert normalise_m4c(text) == expected, rule


@pytest.mark.parametrize("votes", range(TEN + 1))
def test_each_annotator_is_left_out_in_turn(votes: int) -> None:
    said = [True] * votes + [False] * (TEN - votes)
    each = [
        min(Fraction(sum(said[:left] + said[left + 1 :]), 3), Fraction(1)) for left in range(TEN)
    ]
    assert leave_one_out(votes, TEN) == pytest.approx(float(sum(each) / TEN))


def test_scores_of_zero_to_five_votes_of_ten() -> None:
    found = [round(leave_one_out(votes, TEN), 3) for votes in range(6)]
    assert found == [0, 0.3, 0.6, 0.9, 1, 1]


@pytest.mark.parametrize(
    ("rule", "answer", "message", "scores"),
    [
        (
            "where all people agree the official scorer normalises nothing",
            "Yes",
            ["yes"] * 10,
            {"vqa_official": 0, "vqa_always_normalised": 1, "vqa_min3": 1, "m4c": 1},
        ),
        (
            "but line breaks and blanks go even then",
            " yes\n",
            ["yes"] * 10,
            {"vqa_official": 1, "vqa_always_normalised": 1},
        ),
        (
            "where they do not, all are normalised",
            "Yes.",
            people("yes", "yes", "yes", "yes"),
            {"vqa_official": 1, "vqa_always_normalised": 1, "exact_match": 1},
        ),
        (
            "people who differ in a capital alone differ",
            "the Dog",
            ["dog"] * 9 + ["Dog"],
            {"vqa_official": 1},
        ),
        (
            "one vote is 0.3, not a third",
            "cat",
            people("cat"),
            {"vqa_official": 0.3, "vqa_min3": 1 / 3, "m4c": 0.3, "exact_match": 1},
        ),
        (
            "three votes are 0.9, not 1",
            "cat",
            people("cat", "cat", "cat"),
            {"vqa_official": 0.9, "vqa_min3": 1, "m4c": 0.9, "exact_match": 1},
        ),
        ("nobody said it", "cat", people("dog"), dict.fromkeys(SCORERS, 0.0)),
        (
            "equal answers of several people are several votes",
            "2",
            people("two", "2", "Two", "2."),
            {"vqa_official": 1},
        ),
    ],
)
def test_an_answer_has_the_score_of_the_rule(
    rule: str, answer: str, message: list[str], scores: dict[str, float]
) -> None:
    for name, expected in scores.items():
        assert SCORERS[name](answer, message) == pytest.approx(expected), (rule, name)
