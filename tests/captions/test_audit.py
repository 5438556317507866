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
from msgspec.structs import replace

from hnc_ds.captions import audit as stage
from hnc_ds.captions.audit import BASELINES, CLASSIFIERS, Audit, Score, audit, exceeded, table
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
    """A pair of a cat and a dog, whose true caption has "cat" so often."""
    pair = ("a cat", "a dog") if rng.random() < cat else ("a dog", "a cat")
    return [(*pair, kind)]


def rows_of(found: Audit) -> dict[str, str]:
    """The lines of the table by their first words."""
    return {line.split()[0]: line for line in table(found).splitlines() if line}


def drawn(count: int, make, seed: int = 0, **how: object) -> Iterator[list[Pair]]:
    rng = random.Random(seed)
    return (make(rng, **how) for _ in range(count))


def planted(rng: random.Random, kind: str) -> list[Pair]:
    """A pair that one kind of leak gives away, and nothing simpler."""
    one = rng.choice(("dog", "cat"))
    match kind:
        case "words":  # false captions have "purple" somewhat more often
            colours = rng.choice(COLOURS[:-1]), rng.choice([*COLOURS[:-1], *["purple"] * 6])
            pair = tuple(f"There is a {colour} {one}." for colour in colours)
        case "word_pairs":  # dogs are red and cats are blue, each as often
            right, wrong = ("red", "blue") if one == "dog" else ("blue", "red")
            pair = f"The {one} is {right}.", f"The {one} is {wrong}."
        case "order":  # what eats and what is eaten
            pair = f"The {one} eats the grass.", f"The grass eats the {one}."
        case _:  # nothing: the colour is drawn anew for each
            pair = tuple(f"The {one} is {colour}." for colour in rng.sample(COLOURS, 2))
    return [(*pair, "x")]


def accuracies(path: Path) -> dict[str, float]:
    return audit(path, 10_000, 0).types["x"].accuracy


@pytest.mark.parametrize("kind", ["words", "word_pairs", "order"])
def test_a_planted_leak_is_found_by_the_readers_that_can_see_it_alone(tmp_path, kind):
    found = accuracies(write(tmp_path / "c.jsonl", drawn(1200, planted, kind=kind)))

    blind = CLASSIFIERS[: CLASSIFIERS.index(kind)]
    for baseline in blind:
        assert found[baseline] == pytest.approx(0.5, abs=0.06), baseline
    for baseline in CLASSIFIERS[len(blind) :]:
        assert found[baseline] > (0.6 if kind == "words" else 0.99), baseline


@pytest.mark.parametrize("kind", ["word_pairs", "order"])
def test_the_trigram_model_finds_word_orders_that_true_captions_lack(tmp_path, kind):
    found = accuracies(write(tmp_path / "c.jsonl", drawn(1200, planted, kind=kind)))

    assert found["perplexity"] > 0.99


@pytest.mark.parametrize("kind", ["words", "word_pairs", "order", "nothing"])
def test_labels_flipped_at_random_are_a_guess_for_every_reader(tmp_path, kind):
    rng = random.Random(1)
    images = [
        [(*rng.sample(pair, 2), type_) for *pair, type_ in pairs]
        for pairs in drawn(1500, planted, kind=kind)
    ]
    found = audit(write(tmp_path / "c.jsonl", images), 10_000, 0)

    for score in (found.overall, found.types["x"]):
        for baseline in BASELINES:
            assert abs(score.accuracy[baseline] - 0.5) <= 4 * score.error[baseline], baseline
            assert score.error[baseline] < 0.02
    assert found.leaks == ()


def test_a_planted_word_is_found_and_named(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(1000, with_planted)), 1000, 0)

    assert found.types["planted"].accuracy["words"] > 0.99
    leak = next(one for one in found.leaks if (one.type, one.baseline) == ("planted", "words"))
    first = leak.words_for_false[0]
    assert (first.word, first.in_true, first.in_false) == ("purple", 0, 1000)
    assert leak.words_for_true[0].word in COLOURS[:-1]
    weights = [word.weight for word in leak.words_for_true]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] > 0 > first.weight
    assert found.types["attribute"].accuracy["words"] == 0.5


def test_a_planted_pair_of_words_is_named(tmp_path):
    images = drawn(1200, planted, kind="word_pairs")
    (overall, leak) = audit(write(tmp_path / "c.jsonl", images), 2000, 0).leaks

    assert (overall.type, leak.type, leak.baseline) == ("all", "x", "word_pairs")
    true = {w.word: (w.in_true > 0, w.in_false) for w in leak.words_for_true[:2]}
    assert true == {"dog + red": (True, 0), "cat + blue": (True, 0)}
    assert {w.word for w in leak.words_for_false[:2]} == {"dog + blue", "cat + red"}


def test_a_common_word_is_named_before_a_rare_and_more_telling_one(tmp_path):
    """The common one is false in 7 of 10 captions, the rare one always."""
    rare = [("a cat", "a unicorn", "x")] * 50
    common = [("a dog", "a tree", "x")] * 1050 + [("a tree", "a dog", "x")] * 450
    found = audit(write(tmp_path / "c.jsonl", [[pair] for pair in rare + common]), 2000, 0)

    leak = next(one for one in found.leaks if (one.type, one.baseline) == ("x", "words"))
    assert [word.word for word in leak.words_for_false] == ["tree", "unicorn"]


def test_a_template_of_one_side_is_found_though_the_words_are_the_same(tmp_path):
    pairs = [("The cat is near the dog.", "The cat the dog is near.", "frame")]
    found = audit(write(tmp_path / "c.jsonl", [pairs] * 1000), 1000, 0)

    assert found.overall.accuracy["words"] == 1
    leak = found.leaks[0]
    assert [word.word for word in leak.words_for_true] == ["[The _ is _ the _ .]"]
    assert [word.word for word in leak.words_for_false] == ["[The _ the _ is _ .]"]


def test_exchanges_within_an_image_are_a_guess_by_their_words(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(1000, exchanges)), 1000, 0)

    assert (found.overall.accuracy["words"], found.overall.error["words"]) == (0.5, 0)
    assert found.overall.accuracy["word_pairs"] == pytest.approx(0.5, abs=0.03)
    assert found.leaks == ()


def test_words_drawn_alike_for_both_sides_give_one_half_within_the_error(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(1000, leaning, kind="x", cat=0.5)), 1000, 0)

    assert found.overall.error["words"] > 0
    assert abs(found.overall.accuracy["words"] - 0.5) < 4 * found.overall.error["words"]


def test_no_image_is_trained_on_and_tested(tmp_path):
    """The true captions of an image have a word of its own; another image's captions lack it."""
    images = (
        [(f"a cat w{n}", f"a dog w{n}x", "x"), (f"a dog w{n}", f"a cat w{n}x", "x")]
        for n in range(200)
    )
    found = audit(write(tmp_path / "c.jsonl", images), 1000, 0)

    assert found.overall.accuracy == pytest.approx(dict.fromkeys(BASELINES, 0.5), abs=0.02)


def test_what_speaks_for_true_in_one_type_and_for_false_in_another_is_seen_in_each(tmp_path):
    rng = random.Random(0)
    images = [leaning(rng, "a", cat=0.9) + leaning(rng, "b", cat=0.1) for _ in range(500)]
    found = audit(write(tmp_path / "c.jsonl", images), 1000, 0)

    for baseline in CLASSIFIERS:
        assert found.types["a"].accuracy[baseline] == pytest.approx(0.9, abs=0.03)
        assert found.types["b"].accuracy[baseline] == pytest.approx(0.9, abs=0.03)
        assert found.overall.accuracy[baseline] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("copies", [1, 4])
def test_the_error_counts_images_and_not_pairs(tmp_path, copies):
    images = [pairs * copies for pairs in drawn(2000, leaning, kind="x", cat=0.8)]
    found = audit(write(tmp_path / "c.jsonl", images), 2000, 0)

    assert found.overall.pairs == 2000 * copies
    assert found.overall.accuracy["words"] == pytest.approx(0.8, abs=0.03)
    assert found.overall.error["words"] == pytest.approx(sqrt(0.8 * 0.2 / 2000), rel=0.1)


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
    monkeypatch.setattr(stage, "MAX_PAIRS", 250)
    found = audit(write(tmp_path / "c.jsonl", drawn(200, with_planted)), 1000, 0)

    pairs = {name: score.pairs for name, score in found.types.items()}
    assert pairs == {"attribute": 250, "planted": 200}
    assert found.overall.pairs == 450


def test_few_pairs_are_reported_and_not_judged(tmp_path):
    few, plenty = [("a cat", "a dog", "few")], [("a cat", "a dog", "plenty")]
    path = write(tmp_path / "c.jsonl", [few + plenty] * 999 + [plenty])
    found = audit(path, 1000, 0)

    assert (found.types["few"].judged, found.types["plenty"].judged) == (False, True)
    assert set(found.types["few"].accuracy.values()) == {1}
    assert exceeded(found).keys() == {"all", "plenty"}
    rows = rows_of(found)
    assert rows["few"].endswith("too few to judge")
    assert rows["plenty"].endswith("ABOVE THE LIMIT: words, word pairs")


@pytest.mark.parametrize(
    ("name", "baseline", "accuracy", "above"),
    [
        ("all", "words", 0.52, False),
        ("all", "words", 0.5201, True),
        ("all", "word_pairs", 0.54, False),
        ("all", "word_pairs", 0.5401, True),
        ("attribute", "words", 0.55, False),
        ("attribute", "words", 0.5501, True),
        ("attribute", "word_pairs", 0.58, False),
        ("attribute", "word_pairs", 0.5801, True),
        ("attribute", "order", 1.0, False),
        ("all", "perplexity", 1.0, False),
    ],
)
def test_what_exceeds_its_limit_is_marked(name, baseline, accuracy, above):
    half = dict.fromkeys(BASELINES, 0.5)
    score = Score(5000, 1000, True, half, dict.fromkeys(BASELINES, 0.01))
    scores = {
        row: replace(score, accuracy=half | ({baseline: accuracy} if row == name else {}))
        for row in ("all", "attribute")
    }
    found = Audit(scores["all"], {"attribute": scores["attribute"]}, ())

    assert exceeded(found) == ({name: [baseline]} if above else {})
    rows = rows_of(found)
    assert [row for row in scores if "LIMIT" in rows[row]] == [name] * above


def test_a_single_image_has_no_accuracy(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", [exchanges(random.Random(0))]), 1000, 0)

    score = found.types["attribute"]
    assert score.accuracy == score.error == dict.fromkeys(BASELINES)
    assert not score.judged
    assert "too few to judge" in table(found)


@pytest.mark.parametrize("images", [2, 3])
def test_very_few_images_are_read_too(tmp_path, images):
    found = audit(write(tmp_path / "c.jsonl", [[("a cat", "a dog", "x")]] * images), 1000, 0)

    assert set(found.types["x"].accuracy.values()) == {1}


def test_the_table_has_a_line_per_type_in_straight_columns(tmp_path):
    found = audit(write(tmp_path / "c.jsonl", drawn(1000, with_planted)), 1000, 0)
    lines = table(found).splitlines()
    head, rows, limits = lines[2], lines[3:6], lines[6:8]

    assert [row.split()[0] for row in rows] == ["all", "attribute", "planted"]
    for column in ("words", "word pairs", "order", "perplexity", "error", "pairs", "images"):
        end = head.rindex(column) + len(column)
        assert all(row[end - 1].isdigit() and row[end : end + 1] in ("", " ") for row in rows)
    assert [row.split()[-4:] for row in limits] == [
        ["0.52", "0.54", "-", "-"],
        ["0.55", "0.58", "-", "-"],
    ]
    marked = [row.split()[0] for row in rows if "ABOVE THE LIMIT" in row]
    assert marked == ["all", "planted"]
    listed = "planted, words: words for false: purple (0 true, 1,000 false)"
    assert any(listed in line for line in lines)


AUDIT_AND_PRINT = """
import sys
from pathlib import Path
import msgspec
from hnc_ds.captions import audit
audit.MAX_PAIRS = 250
print(msgspec.json.encode(audit.audit(Path(sys.argv[1]), 300, 3)).decode())
"""


@pytest.mark.slow
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
    assert again.types["a"].accuracy["words"] > again.types["b"].accuracy["words"]


def test_other_seeds_draw_other_images(tmp_path):
    path = write(tmp_path / "c.jsonl", drawn(1000, leaning, kind="x", cat=0.8))
    assert audit(path, 300, 0) != audit(path, 300, 1)


def test_without_the_extra_one_line_names_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "c.jsonl", drawn(3, exchanges))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"needs scikit-learn; pip install -e '.*\[audit\]'"):
        audit(path, 1000, 0)


def test_a_file_without_negatives_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"c\.jsonl: contains no negatives"):
        audit(write(tmp_path / "c.jsonl", [[]]), 1000, 0)
