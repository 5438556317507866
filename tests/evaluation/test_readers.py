"""Released files are read as they are, real ones where they lie beside the checkout, and what is
wrong with a file is reported in a line."""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import hnc_ds
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.inputs import read_paths, read_questions
from hnc_ds.evaluation.released import one_image
from hnc_ds.evaluation.released.one_image import ARO_LEFT_OUT, VSR_KIND_OF, VSR_KINDS
from hnc_ds.evaluation.released.rules import DEV, IDENTICAL, ImageRef, Question
from hnc_ds.evaluation.released.several_images import read_captioned

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data"
PAIR = {"filename": "1.jpg", "caption": "a cat on a mat", "negative_caption": "a mat on a cat"}
BOX = {"bbox_x": 10, "bbox_y": 20, "bbox_w": 30, "bbox_h": 40}
ARO = {"image_path": "7.jpg", "true_caption": "t", "false_caption": "f", **BOX}


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_sugarcrepe_has_a_file_for_each_category_and_gaps_in_its_keys(tmp_path: Path) -> None:
    written(tmp_path / "swap_obj.json", {"0": PAIR, "2": PAIR})
    first, second = read_questions("sugarcrepe", tmp_path, allow_missing=True)
    assert (first.id, second.id, first.group) == ("swap_obj/0", "swap_obj/2", "swap_obj")
    assert first.images == (ImageRef("coco2017", "1.jpg"),)
    assert first.captions == (PAIR["caption"], PAIR["negative_caption"])
    assert first.true_captions() == [0]


def test_files_that_are_missing_are_named_unless_they_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"none of the files of SugarCrepe exists: replace_obj"):
        read_questions("sugarcrepe", tmp_path, allow_missing=True)
    written(tmp_path / "swap_obj.json", {"0": PAIR})
    with pytest.raises(UserError, match=r"also needs replace_obj\.json, .*add_att\.json; add them"):
        read_questions("sugarcrepe", tmp_path, allow_missing=False)
    read_questions("sugarcrepe", tmp_path, allow_missing=True)
    assert f"add_att.json missing in {tmp_path}; the others are measured" in capsys.readouterr().out


def test_a_question_that_nobody_can_answer_is_marked(tmp_path: Path) -> None:
    row = {"id": 2, "filename": "1.jpg", "caption": "a", "caption2": "b", "negative_caption": "b"}
    written(tmp_path / "swap_obj.json", [row, row | {"id": 3, "negative_caption": "c"}])
    broken, sound = read_questions("sugarcrepe++", tmp_path, allow_missing=True)
    assert (broken.tags, sound.tags) == ((IDENTICAL,), ())
    assert sound.true_captions() == [0, 1]


def test_aro_cuts_images_to_their_box_and_groups_by_relation_or_attributes(
    tmp_path: Path,
) -> None:
    written(tmp_path / one_image.RELATION_FILE, [ARO | {"relation_name": "on"}])
    written(tmp_path / one_image.ATTRIBUTION_FILE, [ARO | {"attributes": ["red", "old"]}])
    (relation,) = read_questions("aro-relation", tmp_path, False)
    (attribution,) = read_questions("aro-attribution", tmp_path, False)
    assert relation.images == (ImageRef("vg", "7.jpg", (10, 20, 40, 60)),)
    assert (relation.group, attribution.group) == ("on", "red_old")


def test_the_relations_left_out_are_those_of_aros_notebook() -> None:
    assert len(ARO_LEFT_OUT) == 157
    assert {"mounted on", "looking out", "on the other side of", "around"} <= ARO_LEFT_OUT
    digest = hashlib.sha256("\n".join(sorted(ARO_LEFT_OUT)).encode()).hexdigest()
    # Of the list `symmetric` in the notebook, sorted, a name a line.
    assert digest.startswith("3d3d8797704fc28a")
    official = RELEASED["aro-relation"].averages.of_groups["official"]
    assert [official(name, 1) for name in ("on", "wearing", "mounted on")] == [True, True, False]


@pytest.mark.parametrize("package", ["captions", "evaluation", "llava", "scenes"])
def test_no_embedded_name_holds_a_line_break_or_doubled_space(package: str) -> None:
    folder = Path(hnc_ds.__file__).parent / package
    found = [(path.name, json.loads(path.read_text())) for path in folder.rglob("*.json")]
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        found += [
            (f"{module.__name__}.{name}", value)
            for name, value in vars(module).items()
            if isinstance(value, dict | list | tuple | set | frozenset | msgspec.Struct)
            and not name.startswith("__")
        ]
    names = [(where, text) for where, value in found for text in texts(value)]
    assert len(names) > 60
    wrong = [(where, text) for where, text in names if text != " ".join(text.split())]
    assert [(where, text) for where, text in wrong if text.strip()] == []


def texts(value: Any) -> Iterator[str]:
    """All strings in nested collections."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from texts(msgspec.structs.asdict(value))
    elif isinstance(value, dict):
        yield from texts([*value, *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from texts(each)


def test_word_orders_are_read_with_the_true_one_first(tmp_path: Path) -> None:
    row = {"image_path": "val2014/COCO_val2014_1.jpg", "caption_options": ["a b c", "c b a"]}
    (question,) = read_questions("aro-order", written(tmp_path / "o.json", [row]), False)
    assert question.images == (ImageRef("coco2014", "COCO_val2014_1.jpg"),)
    assert question.true_captions() == [0]
    row["caption_options"] = ["a b c"]
    with pytest.raises(UserError, match=r"o\.json.*caption_options"):
        read_questions("aro-order", written(tmp_path / "o.json", [row]), False)


def test_winoground_has_two_images_with_a_caption_each(tmp_path: Path) -> None:
    row = {
        "id": 0,
        "image_0": "ex_0_img_0",
        "image_1": "ex_0_img_1",
        "caption_0": "an old person kisses a young person",
        "caption_1": "a young person kisses an old person",
        "tag": "Adjective",
        "secondary_tag": "",
        "collapsed_tag": "Object",
    }
    assert not set(row) & {"num_main_preds"}  # older copies lack it
    newer = row | {"id": 1, "num_main_preds": 2}
    path = written(tmp_path / "e.jsonl", lines(row, newer))
    question, other = read_questions("winoground", path, False)
    assert other.tags == ("Adjective", "main predicates: 2")
    assert [image.name for image in question.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert question.match == {(0, 0), (1, 1)}
    assert (question.group, question.tags) == ("Object", ("Adjective",))


def test_valse_leaves_out_what_annotators_did_not_confirm(tmp_path: Path) -> None:
    row = {"dataset": "VisDial_v1.0", "image_file": "x.jpg", "caption": "c", "foil": "f"}
    rows = {
        "valid": row | {"mturk": {"caption": 2}},
        "train": row | {"mturk": {"caption": 3}, "image_file": "COCO_train2014_1.jpg"},
        "not": row | {"mturk": {"caption": 1}},
    }
    written(tmp_path / "coreference-hard.json", rows)
    valid, train = read_questions("valse", tmp_path, True)
    assert (valid.images[0].source, train.images[0].source) == ("visdial", "coco2014-train")
    assert sum(one_image.VALSE_VALID.values()) == 7702
    written(tmp_path / "existence.json", {"0": rows["valid"] | {"dataset": "flickr"}})
    with pytest.raises(UserError, match=r"existence\.json: 0: images of 'flickr'"):
        read_questions("valse", tmp_path, True)


def test_hnc_pairs_are_neighbours_or_named_and_zero_is_a_name(tmp_path: Path) -> None:
    said = {"type": "relation", "replaced": None}
    true, false = said | {"caption": "t", "label": 1}, said | {"caption": "f", "label": 0}
    plain = {"n1.jpg": {"0": true, "1": false}}
    named = {"7": {"captions": {"0": true, "5": false | {"cpt_p_id": 0}}}}
    for content, id, name in ((plain, "n1.jpg/1", "n1.jpg"), (named, "7/5", "7.jpg")):
        (question,) = read_questions("hnc-test", written(tmp_path / "t.json", content), False)
        assert (question.id, question.images[0].name) == (id, name)
        assert question.captions == ("t", "f")
    with pytest.raises(UserError, match=r"image n1\.jpg: false caption 0 has no true one"):
        read_questions("hnc-test", written(tmp_path / "t.json", {"n1.jpg": {"0": false}}), False)


def test_vsr_has_single_captions_that_are_true_or_not(tmp_path: Path) -> None:
    row = {"image": "1.jpg", "caption": "The cat is on the mat.", "relation": "on", "label": 1}
    written(tmp_path / "test.jsonl", lines(row, row | {"label": 0}))
    written(tmp_path / "dev.jsonl", lines(row))
    true, false, dev = read_questions("vsr", tmp_path, False)
    assert (true.match, false.match) == ({(0, 0)}, set())
    assert (true.tags, dev.tags) == (("Topological",), (DEV, "Topological"))


def test_vsrs_relations_are_of_seven_kinds() -> None:
    assert len(VSR_KINDS) == 7
    assert len(VSR_KIND_OF) == 70
    kinds = [VSR_KIND_OF[name] for name in ("left of", "down from", "at the edge of", "among")]
    assert kinds == ["Projective", "Directional", "Adjacency", "Unallocated"]


def test_whatsup_names_pairs_and_sets_after_its_images(tmp_path: Path) -> None:
    row = {
        "image_path": "data/controlled_images/beer-bottle_left_of_armchair.jpeg",
        "caption_options": ["left", "right", "on", "under"],
    }
    written(tmp_path / one_image.WHATSUP_CONTROLLED["A"], [row])
    written(tmp_path / "coco_qa_one_obj.json", [[785, "on the left", "on the right"]])
    controlled, coco = read_questions("whatsup", tmp_path, True)
    assert controlled.tags == ("set:beer-bottle_armchair", "pair:beer-bottle_armchair:x", "A left")
    assert coco.tags == ("coco-one left",)
    assert controlled.images[0].name == "controlled_images/beer-bottle_left_of_armchair.jpeg"
    assert coco.images == (ImageRef("coco2017", "000000000785.jpg"),)


@pytest.mark.parametrize(
    ("file", "true", "tag"),
    [
        ("coco_qa_one_obj.json", "A photo of a bench on the bottom.", "coco-one bottom"),
        ("coco_qa_two_obj.json", "A cup to the right of a fork", "coco-two right"),
        ("coco_qa_two_obj.json", "A cup below a fork", "coco-two below"),
        ("coco_qa_two_obj.json", "A cup above a fork", "coco-two above"),
        ("vg_qa_one_obj.json", "A photo of a lamp on the top", "vg-one top"),
        ("vg_qa_two_obj.json", "A cup in front of a fork", "vg-two front"),
        ("vg_qa_two_obj.json", "A cup behind a fork", "vg-two behind"),
        ("vg_qa_two_obj.json", "A cup on top of a fork", "vg-two top"),
    ],
)
def test_whatsup_groups_by_preposition_as_its_own_code(
    tmp_path: Path, file: str, true: str, tag: str
) -> None:
    written(tmp_path / file, [[1, true, "false"]])
    (question,) = read_questions("whatsup", tmp_path, True)
    assert question.tags == (tag,)


def test_cola_takes_the_names_of_images_from_their_addresses(tmp_path: Path) -> None:
    row = ["https://x.org/vg/1.jpg", "a", "https://x.org/vg/2.jpg?y", "b"]
    (question,) = read_questions("cola", written(tmp_path / "c.json", [row]), False)
    assert [image.name for image in question.images] == ["1.jpg", "2.jpg"]


def test_mmvp_rows_are_pairs_and_statements_get_their_prompt(tmp_path: Path) -> None:
    head = "Question ID,Type,Statement\n"
    path = written(
        tmp_path / "Questions.csv", head + '1,State,"open, red door"\n2,State,shut door\n'
    )
    (question,) = read_questions("mmvp", path, False)
    assert question.captions == ("a photo of open, red door", "a photo of shut door")
    assert question.images[0].name == "State/1.jpg"
    with pytest.raises(UserError, match="differ in type"):
        read_questions("mmvp", written(path, head + "1,State,a\n2,Color,b\n"), False)
    with pytest.raises(UserError, match="no column Statement; is it a file of MMVP-VLM"):
        read_questions("mmvp", written(path, "Question ID,Type\n1,State\n"), False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [{"image": "val2014/1.jpg", "caption": ["x", "y"]}]),
        ("a.txt", "image,caption\n1.jpg,x\n1.jpg,y\n"),
        (
            "a.json",
            {
                "images": [
                    {
                        "filename": "1.jpg",
                        "split": "test",
                        "sentences": [{"raw": "x"}, {"raw": "y"}],
                    },
                    {"filename": "2.jpg", "split": "train", "sentences": [{"raw": "z"}]},
                ]
            },
        ),
    ],
)
def test_captioned_images_are_read_in_each_layout(tmp_path: Path, name: str, content: Any) -> None:
    (question,) = read_captioned(written(tmp_path / name, content), "coco2014", "COCO")
    assert question.images == (ImageRef("coco2014", "1.jpg"),)
    assert question.captions == ("x", "y")
    assert question.match == {(0, 0), (0, 1)}


COMMAS = "The man, with pierced ears."


@pytest.mark.parametrize(
    "rows",
    [
        f"1.jpg,{COMMAS}\n1.jpg,A man.\n",
        f'1.jpg,"{COMMAS}"\n1.jpg,A man.\n',
        f'1.jpg#0,{COMMAS}\n1.jpg#1,"A man."\n',
        f"1.jpg,{COMMAS}\r\n1.jpg,A man.\r\n",
        f'"1.jpg","{COMMAS}"\n"1.jpg","A man."',
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_flickrs_captions_keep_their_commas_with_quotes_or_without(
    tmp_path: Path, rows: str, mark: str
) -> None:
    path = tmp_path / "flickr30k_test_karpathy.txt"
    path.write_bytes(f"{mark}image,caption\n{rows}".encode())
    (question,) = read_questions("flickr30k-retrieval", path, False)
    assert question.captions == (COMMAS, "A man.")


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        ('"Stop" sign, and a man', '"Stop" sign, and a man'),
        ('A sign, "Stop"', 'A sign, "Stop"'),
        ('"He said ""stop"", twice"', 'He said "stop", twice'),
        ("a\x85b\u2028c, d", "a\x85b\u2028c, d"),
    ],
)
def test_quotes_and_odd_line_marks_inside_captions_stay(
    tmp_path: Path, caption: str, read: str
) -> None:
    path = written(tmp_path / "flickr.csv", f"image,caption\n1.jpg,{caption}\n")
    (question,) = read_questions("flickr30k-retrieval", path, False)
    assert question.captions == (read,)
    row = {"image": "1.jpg", "caption": read, "relation": "on", "label": 1}
    path = written(tmp_path / "test.jsonl", json.dumps(row, ensure_ascii=False))
    (statement,) = read_questions("vsr", path, True)
    assert statement.captions == (read,)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.jpg", r"f\.txt:2: not an image, a comma and a caption"),
        ("1.jpg,", r"f\.txt:2: not an image, a comma and a caption"),
        (',"a"', r"f\.txt:2: not an image, a comma and a caption"),
        ('1.jpg,"a', r"f\.txt:2: a quote is not closed"),
    ],
)
def test_a_row_that_is_no_image_and_caption_is_named(
    tmp_path: Path, row: str, message: str
) -> None:
    path = written(tmp_path / "f.txt", f"image,caption\n{row}\n")
    with pytest.raises(UserError, match=message):
        read_questions("flickr30k-retrieval", path, False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,State,shut, red door", r"Questions\.csv:3: 4 columns where the header has 3"),
        ("2,State", r"Questions\.csv:3: 2 columns where the header has 3"),
        ('2,State,"shut" door', r"Questions\.csv:3: not a row of CSV"),
        (f"2,State,{'a' * 200_000}", r"Questions\.csv:3: not a row of CSV"),
    ],
)
def test_a_row_of_more_or_fewer_columns_is_refused_and_never_cut(
    tmp_path: Path, row: str, message: str
) -> None:
    head = "Question ID,Type,Statement\n1,State,open\n"
    with pytest.raises(UserError, match=message):
        read_questions("mmvp", written(tmp_path / "Questions.csv", head + row), False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": {"filename"', r"swap_obj\.json: truncated or broken JSON"),
        ([PAIR], r"not in the layout of SugarCrepe .*another benchmark's file"),
        ({"0": {"caption": "a"}}, r"not in the layout of SugarCrepe .*filename"),
        ('{"0": {}, "0": {}}', "the key '0' occurs twice"),
        ({}, "holds no question of sugarcrepe"),
    ],
)
def test_a_file_that_is_wrong_is_one_clear_line(tmp_path: Path, content: Any, message: str) -> None:
    written(tmp_path / "swap_obj.json", content)
    with pytest.raises(UserError, match=message):
        read_questions("sugarcrepe", tmp_path, True)


def test_a_torn_line_is_named_and_so_is_an_id_that_stands_twice(tmp_path: Path) -> None:
    row = {"image": "1.jpg", "caption": "c", "relation": "on", "label": 1}
    path = written(tmp_path / "test.jsonl", lines(row) + '{"image": "2.j')
    with pytest.raises(UserError, match=r"test\.jsonl:2: truncated or broken JSON"):
        read_questions("vsr", path, True)
    crepe = {"id": 1, "filename": "1.jpg", "caption": "a", "caption2": "b", "negative_caption": "c"}
    written(tmp_path / "swap_obj.json", [crepe, crepe])
    with pytest.raises(UserError, match=r"sugarcrepe\+\+: swap_obj/1 occurs twice"):
        read_questions("sugarcrepe++", tmp_path, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sugarcrep=.", "no benchmark 'sugarcrep'; did you mean 'sugarcrepe'"),
        ("sugarcrepe", "not of the form BENCHMARK=PATH"),
        ("sugarcrepe=nowhere", "no such file or folder"),
        ("sugarcrepe=.,sugarcrepe=.", "is given twice"),
    ],
)
def test_wrong_paths_are_reported(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_paths(given)


def test_the_table_is_complete() -> None:
    for name, known in RELEASED.items():
        assert known.sources, name
        assert known.origin.startswith("https://"), name
        assert known.licence, name


def counted(questions: list[Question], of: Callable[[Question], str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for question in questions:
        found[of(question)] = found.get(of(question), 0) + 1
    return found


@pytest.mark.skipif(not SHARED.is_dir(), reason="real excerpts lie beside some checkouts only")
def test_real_excerpts_are_read_whole() -> None:
    crepe = read_questions("sugarcrepe", SHARED / "sugarcrepe_excerpt", False)
    assert min(counted(crepe, lambda q: q.group).values()) >= 20
    assert len(counted(crepe, lambda q: q.group)) == 7
    content = json.loads((SHARED / "hnc_human_test_excerpt.json").read_text())
    captions = [caption for image in content.values() for caption in image.values()]
    hnc = read_questions("hnc-test", SHARED / "hnc_human_test_excerpt.json", False)
    assert len(hnc) == len(captions) / 2
    assert {caption["caption"] for caption in captions} == {c for q in hnc for c in q.captions}
