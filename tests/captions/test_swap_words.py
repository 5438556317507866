"""The stage as a whole: bytes, resuming, statistics, refusals."""

import gzip
import json
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from hnc_ds.captions import phrases
from hnc_ds.captions import swap_words as stage
from hnc_ds.captions.caption_stats import stats_path_of
from hnc_ds.captions.formats.caption_lists import ListedImage, read_caption_list
from hnc_ds.captions.phrases import parse, tag_sentences
from hnc_ds.captions.swap_words import WORD_SWAPS, Fluency, Swap, swapped
from hnc_ds.config import SwapWordsConfig
from hnc_ds.errors import UserError
from hnc_ds.records import ImageCaptions
from tests.captions.accidents import run_stage

SENTENCES = (
    "A boy throws a red ball to an old dog.",
    "A black cat sleeps under a white table.",
    "A woman in a green coat feeds a duck near a pond.",
    "An orange kite above a wooden boat",
    "A man and a woman",
    "Two men holding a sign while a girl plays a drum",
)
IMAGES = 30


def caption_list(path, images=IMAGES):
    rows = (
        {"image": f"{i:03}.jpg", "caption": SENTENCES[(i * 5 + k) % len(SENTENCES)]}
        for i in range(images)
        for k in range(3)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(tmp_path, source, out, workers=1, accident="none", hash_seed="0", **settings):
    paths, more = {"captions": source, "out": out}, {"workers": workers, **settings}
    return run_stage(tmp_path, "swap_words", "SwapWordsConfig", paths, accident, hash_seed, **more)


def swap(source, out, **settings):
    stage.swap_words(SwapWordsConfig(captions=source, out=out, workers=1, **settings))
    return read(out)


def read(out):
    content = gzip.decompress(out.read_bytes()) if out.suffix == ".gz" else out.read_bytes()
    return [msgspec.json.decode(line, type=ImageCaptions) for line in content.splitlines()]


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_or_hash_seed(tmp_path):
    source = caption_list(tmp_path / "list.jsonl")
    outs = [tmp_path / f"{name}.jsonl.gz" for name in ("one", "two", "other")]
    for out, workers, hash_seed in zip(outs, (1, 2, 1), ("0", "0", "7"), strict=True):
        result = run(tmp_path, source, out, workers, hash_seed=hash_seed)
        assert result.returncode == 0, result.stderr
    assert len({out.read_bytes() for out in outs}) == 1
    assert len({stats_path_of(out).read_bytes() for out in outs}) == 1
    assert len(read(outs[0])) == IMAGES


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["kill at part 0", "kill at part 3", "kill while joining"])
def test_a_killed_run_resumes_to_the_bytes_of_a_whole_one(tmp_path, accident):
    source = caption_list(tmp_path / "list.jsonl")
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert run(tmp_path, source, whole).returncode == 0
    assert run(tmp_path, source, killed, accident=accident).returncode == -9
    assert not killed.exists()
    again = run(tmp_path, source, killed, workers=2)
    assert again.returncode == 0, again.stderr
    assert ("done already" in again.stdout) == (accident != "kill at part 0")
    assert killed.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.glob("killed*")} == {
        "killed.jsonl",
        "killed.stats.json",
    }


def test_every_caption_is_a_group_with_an_empty_list_where_there_is_no_swap(tmp_path, capsys):
    out, source = tmp_path / "out.jsonl", caption_list(tmp_path / "list.jsonl", images=6)
    images = swap(source, out)
    said = [[SENTENCES[(i * 5 + k) % 6] for k in range(3)] for i in range(6)]
    assert [[group.positive for group in image.groups] for image in images] == said
    plain = [g for image in images for g in image.groups if not g.negatives]
    assert {group.positive for group in plain} == {"A man and a woman"}
    assert b'"negatives":[]' in out.read_bytes()
    stats = json.loads((tmp_path / "out.stats.json").read_text())
    assert (stats["groups"]["all"], stats["groups_without_negatives"]) == (18, len(plain))
    assert stats["irregular"] == {}
    assert f"18 caption groups ({len(plain)} without negatives)" in capsys.readouterr().out
    fewer = swap(source, tmp_path / "fewer.jsonl", keep_captions="swapped")
    swapped = [[g for g in image.groups if g.negatives] for image in images]
    assert [list(image.groups) for image in fewer] == swapped


def test_captions_without_a_swap_can_be_dropped_and_are_counted(tmp_path):
    out = tmp_path / "out.jsonl"
    source = caption_list(tmp_path / "list.jsonl", images=6)
    images = swap(source, out, keep_captions="swapped")
    for image in images:
        for group in image.groups:
            assert group.type == "caption"
            assert group.positive in SENTENCES
            assert group.positive != "A man and a woman"
            assert 1 <= len(group.negatives) <= 3
            for negative in group.negatives:
                assert negative.open_world
                assert negative.caption not in SENTENCES
    stats = json.loads((tmp_path / "out.stats.json").read_text())
    negatives = [n.type for image in images for group in image.groups for n in group.negatives]
    assert stats["images"] == 6
    made = sum(len(image.groups) for image in images)
    assert stats["groups"] == {"all": made, "caption": made}
    assert stats["negatives"] == {name: negatives.count(name) for name in WORD_SWAPS}
    said = sum(
        SENTENCES[(i * 5 + k) % 6] == "A man and a woman" for i in range(6) for k in range(3)
    )
    assert stats["irregular"] == {"captions without a swap": said}
    assert stats["settings"]["tagger"].startswith("HanTa ")


def test_another_caption_of_the_image_is_no_negative(tmp_path):
    source, out = tmp_path / "list.jsonl", tmp_path / "out.jsonl"
    rows = [{"image": "1.jpg", "caption": text} for text in ("A cat on a box.", "a box on a cat")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (image,) = swap(source, out)
    assert [group.negatives for group in image.groups] == [(), ()]
    (image,) = swap(source, out, keep_captions="swapped", overwrite=True)
    assert image.groups == ()


def test_negatives_that_a_list_has_come_first_and_are_counted(tmp_path, capsys):
    source, out = tmp_path / "list.tsv", tmp_path / "out.jsonl"
    rows = [
        ("a/1.jpg", SENTENCES[1], "['A white cat sleeps under a black table.', 'A dog.']"),
        ("b/2.jpg", "A woman.", "['A man.']"),
        ("a/1.jpg", "A dog", "[]"),
    ]
    lines = ["filepath\ttitle\tneg_caption", *("\t".join(row) for row in rows)]
    source.write_text("\n".join(lines) + "\n")
    one, two = swap(source, out, negative_type=("mine",))
    negatives = [(n.caption, n.type, n.open_world) for n in one.groups[0].negatives]
    assert [group.positive for group in one.groups] == [SENTENCES[1], "A dog"]
    assert negatives[0] == ("A white cat sleeps under a black table.", "mine", True)
    assert len(negatives) == len({caption for caption, *_ in negatives}) > 1
    assert all(type_ in WORD_SWAPS for _, type_, _ in negatives[1:])
    assert [[n.caption for n in group.negatives] for group in two.groups] == [["A man."]]
    stats = json.loads(stats_path_of(out).read_bytes())
    assert stats["negatives"]["mine"] == 2
    assert stats["irregular"]["negatives that are a true caption of their image"] == 1
    assert "mine 2" in capsys.readouterr().out


def test_only_the_types_that_are_named_are_made(tmp_path):
    source = caption_list(tmp_path / "list.jsonl", images=6)
    images = swap(source, tmp_path / "out.jsonl", types=("negclip_noun",), per_caption=1)
    assert {n.type for i in images for g in i.groups for n in g.negatives} == {"negclip_noun"}


DOG, CAT, HORSE = "A dog chases a cat.", "A cat chases a dog.", "A woman rides a horse."


def test_swaps_are_kept_that_are_about_as_likely_as_their_caption(tmp_path, capsys):
    source, out = tmp_path / "list.csv", tmp_path / "out.jsonl"
    rows = (f"{i}.jpg,{text}" for i in range(60) for text in [(DOG, CAT, HORSE)[i % 3]])
    source.write_text("\n".join(["filepath,title", *rows]) + "\n")
    nouns = {"types": ("negclip_noun",), "overwrite": True}
    found = {
        margin: {
            group.positive: {n.caption for n in group.negatives}
            for image in swap(source, out, fluency_margin=margin, **nouns)
            for group in image.groups
        }
        for margin in (None, 1.0, 20.0)
    }
    every = {DOG: {CAT}, CAT: {DOG}, HORSE: {"A horse rides a woman."}}
    assert found == {None: every, 20.0: every, 1.0: {**every, HORSE: set()}}
    swap(source, out, fluency_margin=1.0, **nouns)
    stats = json.loads(stats_path_of(out).read_bytes())
    assert stats["irregular"] == {"swaps that are less likely than fluency_margin allows": 20}
    assert stats["settings"]["fluency_margin"] == 1.0
    assert "dropped or repaired: 20 swaps that are less likely" in capsys.readouterr().out


def test_of_several_swaps_the_most_likely_is_taken(tmp_path):
    source, out = caption_list(tmp_path / "list.jsonl"), tmp_path / "out.jsonl"
    fluency = Fluency(read_caption_list(source, (), Counter()))
    several = 0
    for seed in range(2):
        settings = {"types": ("negclip_noun",), "fluency_margin": 50.0, "seed": seed}
        for image in swap(source, out, overwrite=True, **settings):
            for group in image.groups:
                sentences = [parse(words) for words in tag_sentences(group.positive)]
                pairs = [(s, pair) for s in sentences for pair in WORD_SWAPS["negclip_noun"](s)]
                swaps = [
                    Swap(swapped(group.positive, s, *pair), tuple(map(s.text, pair)))
                    for s, pair in pairs
                ]
                gains = fluency.gains(image.image_id, group.positive, swaps)
                several += len({one.gain for one in gains}) > 1
                best = max((one.gain for one in gains), default=None)
                chosen = {one.swap.text for one in gains if one.gain == best}
                assert {n.caption for n in group.negatives} <= chosen
                assert bool(group.negatives) == bool(swaps)
    assert several > 10


def test_a_caption_is_judged_by_captions_of_other_images():
    (image,) = [ListedImage("1", (DOG,), ((),))]
    swapped = [Swap(CAT, ("dog", "cat")), Swap(HORSE, ("a", "b"))]
    gains = [one.gain for one in Fluency([image]).gains("1", DOG, swapped)]
    assert gains == pytest.approx([0, 0])  # nothing is known, so all words are equally likely
    others = [ListedImage(str(n), (CAT,), ((),)) for n in range(2, 9)]
    likely, unlikely = Fluency([image, *others]).gains("1", DOG, swapped)
    assert likely.gain > 0 > unlikely.gain


@pytest.mark.slow
def test_bytes_of_fluent_swaps_do_not_depend_on_workers_or_hash_seed(tmp_path):
    source = caption_list(tmp_path / "list.jsonl", images=70)
    outs = [tmp_path / f"{name}.jsonl" for name in ("one", "two")]
    for out, workers, hash_seed in zip(outs, (1, 2), ("0", "7"), strict=True):
        result = run(tmp_path, source, out, workers, hash_seed=hash_seed, fluency_margin=1.0)
        assert result.returncode == 0, result.stderr
    one, two = outs
    assert one.read_bytes() == two.read_bytes()
    assert stats_path_of(one).read_bytes() == stats_path_of(two).read_bytes()
    assert "less likely" in stats_path_of(one).read_text()


def test_another_seed_draws_other_negatives(tmp_path):
    source = caption_list(tmp_path / "list.jsonl", images=6)
    first, other = (
        swap(source, tmp_path / f"{seed}.jsonl", seed=seed, per_caption=1) for seed in (0, 1)
    )
    assert first != other


def test_the_command_writes_the_file(tmp_path):
    source = caption_list(tmp_path / "list.jsonl", images=3)
    command = [sys.executable, "-m", "hnc_ds.cli", "swap-words", "--captions", str(source)]
    command += ["--out", str(tmp_path / "out.jsonl"), "--workers", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 images, " in result.stdout
    assert len(read(tmp_path / "out.jsonl")) == 3


def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path):
    source = caption_list(tmp_path / "list.jsonl", images=1)
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="unknown word swap 'negclip_nuon'; did you mean"):
        swap(source, out, types=("negclip_nuon",))
    with pytest.raises(UserError, match=r"must end in \.jsonl"):
        swap(source, tmp_path / "out.json")
    with pytest.raises(UserError, match="no such file"):
        swap(tmp_path / "none.jsonl", out)
    with pytest.raises(UserError, match="per_caption is 0"):
        swap(source, out, per_caption=0)
    assert {path.name for path in tmp_path.iterdir()} == {"list.jsonl"}
    swap(source, out)
    swap(source, out)
    with pytest.raises(UserError, match="exists already"):
        swap(source, out, seed=1)
    swap(source, out, seed=1, overwrite=True)


def test_a_list_without_captions_leaves_nothing_behind(tmp_path):
    source = tmp_path / "list.csv"
    source.write_text("filepath,title\n")
    with pytest.raises(UserError, match="holds no images"):
        swap(source, tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv"}


def test_without_the_tagger_a_line_says_how_to_get_it(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    phrases.load_tagger.cache_clear()
    monkeypatch.setattr(phrases, "import_module", missing)
    with pytest.raises(UserError, match=r"needs the tagger HanTa .*\[negclip\]"):
        swap(caption_list(tmp_path / "list.jsonl"), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
