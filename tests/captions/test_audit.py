"""The audit finds what gives labels away by text alone, and nothing where nothing does."""

import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from math import sqrt
from pathlib import Path

import msgspec
import pytest

from hnc_ds.captions import audit as stage
from hnc_ds.captions.audit import Audit, audit, table
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

COLOURS = "red blue green white black brown gray yellow purple".split()
THINGS = "dog cat table chair cup hat car bus tree bench".split()

Pair = tuple[str, str, str]
"""True caption, false caption, type."""


def write(path: Path, images: Iterable[Iterable[Pair]]) -> Path:
    """A file of captions with a group for each pair."""
    lines = []
    for number, pairs in enumerate(images):
        groups = tuple(
            CaptionGroup(true, "statement", (Negative(false, kind),)) for true, false, kind in pairs
        )
        lines.append(msgspec.json.encode(ImageCaptions(str(number), groups)) + b"\n")
    path.write_bytes(b"".join(lines))
    return path


def exchanges(rng: random.Random) -> list[Pair]:
    """Two true statements of an image, and the false ones with their colours exchanged."""
    (one, other), (red, blue) = rng.sample(THINGS, 2), rng.sample(COLOURS, 2)
    return [
        (f"The {one} is {red}.", f"The {one} is {blue}.", "attribute"),
        (f"The {other} is {blue}.", f"The {other} is {red}.", "attribute"),
    ]


def with_planted(rng: random.Random) -> list[Pair]:
    """Beside exchanges, a type whose negatives are purple and whose positives never are."""
    thing, colour = rng.choice(THINGS), rng.choice(COLOURS[:-1])
    return [
        *exchanges(rng),
        (f"There is a {colour} {thing}.", f"There is a purple {thing}.", "planted"),
    ]


def leaning(rng: random.Random, kind: str, cat: float) -> list[Pair]:
    """A pair whose true caption says "cat" so often, and whose false one says "dog" so often."""
    true, false = (rng.random() < cat for _ in range(2))
    return [("a cat" if true else "a dog", "a dog" if false else "a cat", kind)]


def rows_of(found: Audit) -> dict[str, str]:
    """The lines of the table by their first words."""
    return {line.split()[0]: line for line in table(found).splitlines() if line}


def drawn(count: int, make, seed: int = 0, **how: object) -> Iterator[list[Pair]]:
    rng = random.Random(seed)
    return (make(rng, **how) for _ in range(count))


def test_a_planted_word_is_found_and_named(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(300, with_planted)), 1000, 0)

    assert found.types["planted"].accuracy > 0.99
    assert found.worst == "planted"
    first = found.speaks_for_false[0]
    assert (first.word, first.in_true, first.in_false) == ("purple", 0, 300)
    assert found.speaks_for_true[0].word in COLOURS[:-1]
    weights = [word.weight for word in found.speaks_for_true]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] > 0 > first.weight
    assert len(weights) == 10
    assert found.types["attribute"].accuracy == 0.5


def test_a_common_word_is_named_before_a_rare_one_that_tells_more(tmp_path):
    """The common one is false in 7 of 10 captions, the rare one always."""
    rare = [("a cat", "a unicorn", "x")] * 10
    common = [("a dog", "a tree", "x")] * 210 + [("a tree", "a dog", "x")] * 90
    found = audit(write(tmp_path / "c.jsonl", [[pair] for pair in rare + common]), 1000, 0)

    assert [word.word for word in found.speaks_for_false] == ["tree", "unicorn"]


def test_a_template_of_one_side_is_found_though_the_words_are_the_same(tmp_path):
    pairs = [("The cat is near the dog.", "The cat the dog is near.", "frame")]
    found = audit(write(tmp_path / "c.jsonl", [pairs] * 200), 1000, 0)

    assert found.overall.accuracy == 1
    assert [word.word for word in found.speaks_for_true] == ["[The _ is _ the _ .]"]
    assert [word.word for word in found.speaks_for_false] == ["[The _ the _ is _ .]"]


def test_exchanges_within_an_image_give_exactly_one_half(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(300, exchanges)), 1000, 0)

    assert (found.overall.accuracy, found.overall.error) == (0.5, 0)
    assert found.speaks_for_true == found.speaks_for_false == ()


def test_words_drawn_alike_for_both_sides_give_one_half_within_the_error(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(1000, leaning, kind="x", cat=0.5)), 1000, 0)

    assert found.overall.error > 0
    assert abs(found.overall.accuracy - 0.5) < 4 * found.overall.error


def test_a_swapped_order_is_seen_by_the_column_without_a_limit_alone(tmp_path):
    pairs = [("The cow eats the grass.", "The grass eats the cow.", "swap")]
    found = audit(write(tmp_path / "c.jsonl", [pairs] * 200), 1000, 0)

    assert found.types["swap"].accuracy == 0.5
    assert found.order["swap"] == 1


def test_no_image_is_trained_on_and_tested(tmp_path):
    """The true captions of an image have a word of its own; another image's cannot tell it."""
    images = (
        [(f"a cat w{n}", f"a dog w{n}x", "x"), (f"a dog w{n}", f"a cat w{n}x", "x")]
        for n in range(200)
    )
    found = audit(write(tmp_path / "c.jsonl", images), 1000, 0)

    assert found.overall.accuracy == 0.5


def test_what_speaks_for_true_in_one_type_and_for_false_in_another_is_seen_in_each(tmp_path):
    rng = random.Random(0)
    images = [leaning(rng, "a", cat=0.9) + leaning(rng, "b", cat=0.1) for _ in range(500)]
    found = audit(write(tmp_path / "c.jsonl", images), 1000, 0)

    assert found.types["a"].accuracy == pytest.approx(0.9, abs=0.03)
    assert found.types["b"].accuracy == pytest.approx(0.9, abs=0.03)
    assert found.overall.accuracy == pytest.approx(0.5, abs=0.03)
    # The classifier for all guesses one way or the other, fold by fold, alike for both types.
    assert found.by_overall["a"] + found.by_overall["b"] == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("copies", [1, 4])
def test_the_error_counts_images_and_not_pairs(tmp_path, copies):
    """Of a pair the mean of two independent shares of 0.8, which varies by 0.8 * 0.2 / 2."""
    images = [pairs * copies for pairs in drawn(2000, leaning, kind="x", cat=0.8)]
    found = audit(write(tmp_path / "c.jsonl", images), 2000, 0)

    assert found.overall.pairs == 2000 * copies
    assert found.overall.accuracy == pytest.approx(0.8, abs=0.03)
    assert found.overall.error == pytest.approx(sqrt(0.8 * 0.2 / 2 / 2000), rel=0.1)


def test_images_are_drawn_from_the_whole_file_and_negatives_not_proven_false_count(tmp_path):
    open_world = [
        ImageCaptions(
            str(number),
            (CaptionGroup("a", "x", (Negative("b", str(number // 50), open_world=True),)),),
        )
        for number in range(100)
    ]
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, open_world)))
    found = audit(path, 40, 0)

    assert found.overall.images == found.overall.pairs == 40
    assert found.types.keys() == {"0", "1"}
    assert min(score.images for score in found.types.values()) >= 10


def test_types_with_very_many_pairs_are_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "MOST_PAIRS", 250)
    found = audit(write(tmp_path / "c.jsonl", drawn(200, with_planted)), 1000, 0)

    pairs = {name: score.pairs for name, score in found.types.items()}
    assert pairs == {"attribute": 250, "planted": 200}
    assert found.overall.pairs == 450


def test_few_pairs_are_reported_and_not_judged(tmp_path):
    few, plenty = [("a cat", "a dog", "few")], [("a cat", "a dog", "plenty")]
    path = write(tmp_path / "c.jsonl", [few + plenty] * 199 + [plenty])
    found = audit(path, 1000, 0)

    assert (found.types["few"].judged, found.types["plenty"].judged) == (False, True)
    assert found.types["few"].accuracy == found.types["plenty"].accuracy == 1
    assert found.worst == "plenty"
    rows = rows_of(found)
    assert rows["few"].endswith("too few to judge")
    assert rows["plenty"].endswith("ABOVE THE LIMIT")


@pytest.mark.parametrize(
    ("name", "accuracy", "above"),
    [
        ("all", 0.53, False),
        ("all", 0.5301, True),
        ("attribute", 0.58, False),
        ("attribute", 0.5801, True),
    ],
)
def test_what_exceeds_its_limit_is_marked(tmp_path, name, accuracy, above):
    found = audit(
        write(tmp_path / "c.jsonl", drawn(300, leaning, kind="attribute", cat=0.6)), 300, 0
    )
    scores = {
        row: msgspec.structs.replace(found.overall, accuracy=accuracy if row == name else 0.5)
        for row in ("all", "attribute")
    }
    types = {"attribute": scores["attribute"]}
    rows = rows_of(msgspec.structs.replace(found, overall=scores["all"], types=types))

    assert [row for row in scores if rows[row].endswith("LIMIT")] == [name] * above
    assert ("attribute:" in rows) == above  # the words of chance are not told


def test_a_single_image_has_no_accuracy(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", [exchanges(random.Random(0))]), 1000, 0)

    score = found.types["attribute"]
    assert (score.accuracy, score.error, score.judged) == (None, None, False)
    assert found.by_overall == found.order == {"attribute": None}
    assert "too few to judge" in table(found)


def test_the_table_has_a_line_per_type_in_straight_columns(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(300, with_planted)), 1000, 0)
    lines = table(found).splitlines()
    head, rows = lines[2], lines[3:6]

    assert [row.split()[0] for row in rows] == ["all", "attribute", "planted"]
    assert [row.split()[3] for row in rows] == ["0.53", "0.58", "0.58"]
    for column in ("accuracy", "error", "limit", "pairs", "images"):
        end = head.index(column) + len(column)
        assert all(row[end - 1].isdigit() and row[end : end + 1] in ("", " ") for row in rows)
    marked = [row.split()[0] for row in rows if row.endswith("ABOVE THE LIMIT")]
    assert marked == ["all", "planted"]
    assert any("planted: false is said by purple (0 true, 300 false)" in line for line in lines)


AUDIT_AND_PRINT = """
import sys
from pathlib import Path
import msgspec
from hnc_ds.captions import audit
audit.MOST_PAIRS = 250
print(msgspec.json.encode(audit.audit(Path(sys.argv[1]), 300, 3)).decode())
"""


def test_numbers_do_not_depend_on_the_process(tmp_path):
    rng = random.Random(0)
    images = [leaning(rng, "a", cat=0.8) + leaning(rng, "b", cat=0.6) for _ in range(400)]
    path = write(tmp_path / "c.jsonl", images)
    found = [
        subprocess.run(
            [sys.executable, "-c", AUDIT_AND_PRINT, str(path)],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    ]
    assert found[0] == found[1]
    again = msgspec.json.decode(found[0], type=Audit)
    assert (again.types["a"].pairs, again.types["b"].pairs) == (250, 250)
    assert again.types["a"].accuracy > again.types["b"].accuracy


def test_other_seeds_draw_other_images(tmp_path):
    path = write(tmp_path / "c.jsonl", drawn(1000, leaning, kind="x", cat=0.8))
    assert audit(path, 300, 0) != audit(path, 300, 1)


def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "c.jsonl", drawn(3, exchanges))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'hnc_ds\[audit\]'"):
        audit(path, 1000, 0)


def test_a_file_without_negatives_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"c\.jsonl: holds no negatives"):
        audit(write(tmp_path / "c.jsonl", [[]]), 1000, 0)
