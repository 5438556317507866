"""What `inspect` prints of a captions file: right counts, fair and repeatable draws, readable."""

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from hnc_ds.captions.contents import WIDTH, inspect_captions, survey
from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative

CUP = CaptionGroup(
    "The cup is red.",
    "attribute",
    (
        Negative("The cup is blue.", "attribute", ("red", "blue")),
        Negative("The cup is gray.", "attribute", ("red", "gray")),
        Negative("The plate is red.", "object", ("cup", "plate"), open_world=True),
    ),
)
SWAP = CaptionGroup(
    "The cup is on the tray.", "relation", (Negative("The tray is on the cup.", "swap"),)
)
IMAGES = [
    ImageCaptions("2386621", (CUP, SWAP)),
    ImageCaptions("713", (SWAP,)),
    ImageCaptions("5", ()),
]


def write(path: Path, images: list[ImageCaptions]) -> Path:
    data = b"".join(msgspec.json.encode(image) + b"\n" for image in images)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_everything_is_counted() -> None:
    contents = survey(IMAGES, samples=10, seed=0)
    assert (contents.images, contents.without, contents.open_world) == (3, 1, 1)
    assert contents.positives == {"attribute": 1, "relation": 2}
    assert contents.negatives == {"attribute": 2, "object": 1, "swap": 2}
    assert contents.groups == {"attribute": 1, "object": 1, "swap": 2}
    assert [e.image_id for e in contents.examples["swap"]] == ["2386621", "713"]
    (example,) = contents.examples["attribute"]
    assert [n.caption for n in example.negatives] == ["The cup is blue.", "The cup is gray."]


def many(count: int) -> list[ImageCaptions]:
    return [ImageCaptions(str(i), (SWAP,)) for i in range(count)]


def test_every_group_is_drawn_equally_often() -> None:
    """Of 20 groups 4: each comes in a fifth of the draws, the first as often as the last."""
    drawn: Counter[str] = Counter()
    for seed in range(2000):
        examples = survey(many(20), samples=4, seed=seed).examples["swap"]
        assert len({e.image_id for e in examples}) == 4
        drawn.update(e.image_id for e in examples)
    assert len(drawn) == 20
    assert all(abs(times - 400) < 90 for times in drawn.values())  # 5 standard deviations


def test_the_same_seed_draws_the_same_groups_and_another_others() -> None:
    def drawn(seed: int) -> list[str]:
        return [e.image_id for e in survey(many(300), 5, seed).examples["swap"]]

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed)) for seed in range(5)}) == 5


def test_the_page_shows_counts_and_groups_one_under_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "c.jsonl.gz", IMAGES)
    inspect_captions(InspectConfig(shards=path))
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == (
        f"{path}: 3 images (1 without captions), 3 groups, 5 negatives (1 not proven false)"
    )
    assert [row.split() for row in rows[:8]] == [
        ["captions", "per", "image", "share"],
        ["true", "captions", "3", "1.00"],
        ["relation", "2", "0.67", "66.7%"],
        ["attribute", "1", "0.33", "33.3%"],
        ["negatives", "5", "1.67"],
        ["attribute", "2", "0.67", "40.0%"],
        ["swap", "2", "0.67", "40.0%"],
        ["object", "1", "0.33", "20.0%"],
    ]
    assert rows[8:] == [
        "",
        "  pairs per image       1.7 on average, median 1, 10th percentile 0",
        "                        none in 1 of 3 images",
        "",
        "attribute: 1 of 1 groups",
        "   2386621 + The cup is red.",
        "           - The cup is blue.  [red -> blue]",
        "           - The cup is gray.  [red -> gray]",
        "",
        "object: 1 of 1 groups",
        "   2386621 + The cup is red.",
        "           ~ The plate is red.  [cup -> plate]",
        "",
        "swap: 2 of 2 groups",
        "   2386621 + The cup is on the tray.",
        "           - The tray is on the cup.",
        "       713 + The cup is on the tray.",
        "           - The tray is on the cup.",
        "",
        "+ true, - false, ~ not proven false; in brackets the replaced words",
    ]


def test_long_captions_are_wrapped_and_stay_under_their_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "The " + "very " * 30 + "long cup is red."
    group = CaptionGroup(long, "attribute", (Negative(long, "attribute", ("red", "blue")),))
    inspect_captions(
        InspectConfig(shards=write(tmp_path / "c.jsonl", [ImageCaptions("7", (group,))]))
    )
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= WIDTH for line in lines[1:])
    start = lines.index("attribute: 1 of 1 groups") + 1
    shown = lines[start : start + 5]
    assert [line[:13].strip() for line in shown] == ["7 +", "", "-", "", ""]
    assert "".join(line[13:] + " " for line in shown[:2]).strip() == long
    assert shown[4] == f"{'':13}[red -> blue]"


def test_captions_without_negatives_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("filepath,title\n1.jpg,A cat.\n1.jpg,A dog.\n2.jpg,A bird.\n")
    inspect_captions(InspectConfig(shards=str(path)))
    lines = capsys.readouterr().out.splitlines()
    assert f"{path}: 2 images, 3 groups (3 without negatives), 0 negatives" in lines
    negatives = CaptionGroup("A cat.", "caption", (Negative("A dog.", "swap"),))
    both = ImageCaptions("7", (negatives, CaptionGroup("A bird.", "caption", ())))
    written = write(tmp_path / "c.jsonl", [both])
    inspect_captions(InspectConfig(shards=written))
    shown = capsys.readouterr().out
    assert "2 groups (1 without negatives), 1 negative" in shown
    assert "swap: 1 of 1 groups" in shown


def test_the_number_of_samples_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "c.jsonl", many(30))
    inspect_captions(InspectConfig(shards=path))
    assert "swap: 10 of 30 groups" in capsys.readouterr().out
    inspect_captions(InspectConfig(shards=path, samples=3))
    assert "swap: 3 of 30 groups" in capsys.readouterr().out


def test_what_cannot_be_inspected_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", IMAGES)
    with pytest.raises(UserError, match="need shards; run 'hnc-ds pack' first"):
        inspect_captions(InspectConfig(shards=path, verify=True))
    path.write_text("[]")
    with pytest.raises(UserError, match="holds no images"):
        inspect_captions(InspectConfig(shards=path))


def test_the_command_takes_a_file_without_torch_and_may_be_cut_short(tmp_path: Path) -> None:
    """As in: hnc-ds inspect captions.jsonl | head -1"""
    path = write(tmp_path / "c.jsonl", many(3000))
    script = (
        "import sys; from hnc_ds.cli import main; status = main(); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    command = [sys.executable, "-c", script, "inspect", str(path), "--samples", "3000"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "3,000 images" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "Error" not in errors
