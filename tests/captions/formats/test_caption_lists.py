"""Lists of captions in every layout, and the errors for broken ones."""

import gzip
import json
from collections import Counter

import msgspec
import pytest

from hnc_ds.captions.formats import caption_lists
from hnc_ds.captions.formats.caption_lists import path_of, read_caption_list
from hnc_ds.captions.formats.caption_rows import NegativeColumns, texts_of
from hnc_ds.captions.formats.captions import captioned_images, read_captions
from hnc_ds.errors import UserError

EXPECTED = [("000000000009", ("A cat.", "A dog.")), ("000000000025", ("A bird.",))]

COCO = {
    "info": {"year": 2017},
    "images": [
        {"license": 3, "file_name": "000000000009.jpg", "height": 480, "id": 9},
        {"license": 3, "file_name": "000000000025.jpg", "height": 480, "id": 25},
    ],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "A cat. "},
        {"image_id": 25, "id": 2, "caption": "A\nbird."},
        {"image_id": 9, "id": 3, "caption": "A  dog."},
        {"image_id": 9, "id": 4, "caption": "A cat."},
    ],
}

KARPATHY = {
    "images": [
        {
            "filepath": "val2014",
            "sentids": [1, 2],
            "filename": "000000000009.jpg",
            "imgid": 0,
            "split": "train",
            "sentences": [
                {"tokens": ["a", "cat"], "raw": "A cat.", "imgid": 0, "sentid": 1},
                {"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 2},
            ],
        },
        {
            "filename": "000000000025.jpg",
            "split": "restval",
            "sentences": [{"tokens": ["a", "bird"], "raw": "A bird."}],
        },
        {
            "filename": "000000000030.jpg",
            "split": "test",
            "sentences": [{"tokens": ["a", "cow"], "raw": "A cow."}],
        },
    ],
    "dataset": "coco",
}

ROWS = [
    {"image": "train2017/000000000009.jpg", "caption": "A cat."},
    {"image": "train2017/000000000009.jpg", "caption": "A dog."},
    {"image": "train2017/000000000025.jpg", "caption": "A bird."},
]

LAYOUTS = {
    "coco.json": json.dumps(COCO),
    "coco_over_lines.json": json.dumps(COCO, indent=1),
    "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "lists.jsonl": "\n".join(
        [
            '{"image": "000000000009.png", "caption": ["A cat.", "A dog."]}',
            "",
            '{"file_name": "000000000025", "text": "A bird."}',
        ]
    ),
    "array.json": json.dumps(ROWS),
    "open_clip.csv": "filepath,title\n"
    'a/000000000009.jpg,A cat.\na/000000000009.jpg,"A dog."\n\na/000000000025.jpg,A bird.\n',
    "open_clip.tsv": "\ufefftitle\tfilepath\r\n"
    "A cat.\ta/000000000009.jpg\r\nA dog.\ta/000000000009.jpg\r\nA bird.\ta/000000000025.jpg\r\n",
    "flickr.csv": "image_name| comment_number| comment\n"
    "000000000009.jpg| 0| A cat.\n000000000009.jpg| 1| A dog.\n000000000025.jpg| 0| A bird.\n",
}


def read(path, *splits, irregular=None):
    found = Counter() if irregular is None else irregular
    images = list(read_caption_list(path, splits, found))
    assert not any(any(image.negatives) for image in images)
    return [(image.image_id, image.captions) for image in images]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_images_with_their_captions(tmp_path, name, zipped):
    path = tmp_path / name
    content = LAYOUTS[name].encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert read(path) == EXPECTED


def test_of_karpathys_file_the_named_splits_are_read(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(KARPATHY))
    assert read(path, "train", "restval") == EXPECTED
    assert [image_id for image_id, _ in read(path)] == [*dict(EXPECTED), "000000000030"]
    with pytest.raises(UserError, match="split 'val' has no images; there are restval, test"):
        read(path, "val")


def test_splits_are_refused_where_there_are_none(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(LAYOUTS["coco.json"])
    with pytest.raises(UserError, match="has no splits"):
        read(path, "train")


def test_what_is_left_out_is_counted(tmp_path):
    coco = json.loads(LAYOUTS["coco.json"])
    coco["images"].append({"id": 30, "file_name": "30.jpg"})
    coco["annotations"].append({"image_id": 31, "caption": "A cow."})
    coco["annotations"].append({"image_id": 9, "caption": "  "})
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco))
    irregular: Counter[str] = Counter()
    assert read(path, irregular=irregular) == EXPECTED
    assert irregular == {
        "captions of images that are not listed": 1,
        "images without captions": 1,
        "images with an empty caption": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ('{"images": [{"id": 1', "not captions in COCO's layout"),
        ('{"images": [], "categories": []}', "missing required field `annotations`"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}',
            r"missing required field `caption`.*\$\.annotations\[0\]",
        ),
        (
            '{"images": [{"filename": "1.jpg", "sentences": [{"raw": "A"}]}, {"sentences": 3}]}',
            r"images\[1\]: ",
        ),
        (
            '{"images": [{"filename": "1.jpg", "sentences": [{"raw": "A cat."}]}, {"file',
            "after 1 elements: truncated or broken JSON",
        ),
        ('{"image": "1.jpg", "caption": "A cat."}\n{"image": "2', "line 2: broken JSON"),
        ('{"image": "1.jpg", "caption": "A cat."}\n[1]\n', "line 2: Expected `object`"),
        ('{"image": "1.jpg", "caption": "A cat."}\n{"image": "2.jpg"}', "line 2: needs an image"),
        ('{"image": "1.jpg", "caption": 3}', "line 1: needs an image"),
        ('[{"image": "1.jpg", "caption": "A cat."}, {"image"', "after 1 elements"),
        ('[{"image": "1.jpg"}]', "element 0: needs an image"),
        ("filepath,label\n1.jpg,A cat.\n", "line 1: no column of captions among 'filepath, label'"),
        ("link,title\n1.jpg,A cat.\n", "line 1: no column of images"),
        ("filepath,title\n1.jpg,A cat.\n2.jpg\n", "line 3: fewer columns than the header"),
        ("filepath,title\n,A cat.\n", "line 2: no image is named"),
        ("filepath,title\n1.jpg,The man, with a hat.\n", "line 2: more columns than the header"),
        ('filepath,title\n1.jpg,"A" cat.\n', "after line 2: .*',' expected after"),
        ('filepath,title\n1.jpg,"A cat.\n2.jpg,A dog.\n', "unexpected end of data"),
        (
            "filepath,title,neg_caption\n1.jpg,A cat.,\"['A dog.', A cow\"\n",
            "line 2: neg_caption: a list that is truncated or not of texts at ' A cow'",
        ),
        ('{"image": "1.jpg", "caption": "A", "negatives": [3]}', "line 1: negatives: neither text"),
        ('{"0": {"filename": "1.jpg"}}', "member '0': needs an image"),
        (b"filepath,title\n1.jpg,A cat.\n2.jpg,\xff\xfe\n", "not UTF-8"),
        (b"\x1f\x8b\x08\x00cut off", "broken gzip"),
        (gzip.compress(b'{"image": "1.jpg", "caption": "A cat."}', mtime=0)[:-9], "broken gzip"),
    ],
)
def test_a_broken_list_is_refused_with_file_and_place(tmp_path, content, message):
    path = tmp_path / "list"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize("held", [1 << 26, 2000])
def test_rows_of_an_image_are_brought_together_however_far_they_lie_apart(
    tmp_path, monkeypatch, held
):
    monkeypatch.setattr(caption_lists, "MOST_HELD", held)
    path = tmp_path / "rows.csv"
    lines = [f"{n % 7}.jpg,Caption {n}.\n" for n in range(50)]
    path.write_text("filepath,title\n" + "".join(lines))
    expected = [(str(i), tuple(f"Caption {n}." for n in range(i, 50, 7))) for i in range(7)]
    assert read(path) == expected


def test_files_of_one_name_are_distinguished_by_their_folders(tmp_path):
    path = tmp_path / "rows.csv"
    files = ["x/train/1.jpg", "y/train/1.jpg", "z/1.jpg", "x/2.jpg", "x/train/1.png", "../../etc/3"]
    path.write_text("filepath,title\n" + "".join(f"{file},Of {file}\n" for file in files))
    assert [image_id for image_id, _ in read(path)] == ["x/train/1", "y/train/1", "z/1", "2", "3"]
    irregular: Counter[str] = Counter()
    assert read(path, irregular=irregular)[0][1] == ("Of x/train/1.jpg", "Of x/train/1.png")
    assert irregular == {"images named with several suffixes (1.jpg, 1.png), taken as one": 1}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(
            {
                "images": [
                    {"filename": f"{n}.jpg", "sentences": sentences, "split": "train"}
                    for n, sentences in enumerate([[{"raw": "A cat."}], []])
                ]
            }
        ),
        '{"image": "0.jpg", "caption": ["A cat."]}\n{"image": "1.jpg", "caption": []}\n',
    ],
)
def test_images_with_an_empty_list_of_captions_are_counted(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_text(content)
    irregular: Counter[str] = Counter()
    assert read(path, irregular=irregular) == [("0", ("A cat.",))]
    assert irregular == {"images without captions": 1}


@pytest.mark.parametrize("mark", "\t|")
def test_a_quote_that_swallows_rows_is_reported_with_its_place(tmp_path, mark):
    path = tmp_path / "rows.tsv"
    rows = [("image", "caption"), ("0.jpg", "A cow."), ("1.jpg", '"Stop says the sign')]
    rows += [("2.jpg", "A man."), ("3.jpg", 'A dog says "'), ("4.jpg", "A cat.")]
    path.write_text("".join(f"{image}{mark}{text}\n" for image, text in rows))
    with pytest.raises(UserError, match=r"rows\.tsv: line 3: a quote opens a cell and none"):
        read(path)
    path.write_text(f'image{mark}caption\n1.jpg{mark}"Stop" says the sign\n')
    with pytest.raises(UserError, match="after line 2: quotes around part of a cell"):
        read(path)
    path.write_text(f'image{mark}caption\n1.jpg{mark}"A cow\nstands."\n')
    assert read(path) == [("1", ("A cow stands.",))]


NEGCLIP = """\ttitle\tfilepath\tneg_caption\tneg_image
0\tA grey cat sits.\tcoco/val2014/111.jpg\t"['A red cat sits.', ""A cat's grey.""]"\t[3, 1]
1\tA man pours milk.\tcoco/train2014/222.jpg\t['A man pours tea.']\t[0, 2]
2\tThe cat sleeps.\tcoco/val2014/111.jpg\t['The lamp sleeps.', 'a grey CAT sits']\t[3, 2]
"""
CREPE = """,image_id,x,y,width,height,caption,hard_negs
0,7,1,2,30,40,a dog on a mat,"[""a dog's mat"", 'a mat on a dog',]"
1,8,1,2,30,40,a cow,[]
"""
SUGARCREPE = {
    str(n): {"filename": f"{n}.jpg", "caption": f"It is {n}.", "negative_caption": f"It is {n}0."}
    for n in range(2)
}
OWN = "".join(
    json.dumps({"image": f"{n}.jpg", "caption": f"It is {n}.", "false ones": [f"No {n}.", "No."]})
    + "\n"
    for n in range(2)
)
WITH_NEGATIVES = {
    "negclip.tsv": (
        NEGCLIP,
        NegativeColumns(),
        {
            "111": {
                "A grey cat sits.": ["A red cat sits.", "A cat's grey."],
                "The cat sleeps.": ["The lamp sleeps."],
            },
            "222": {"A man pours milk.": ["A man pours tea."]},
        },
        "negclip",
        "4 of type negclip, 3 cells of neg_image, which are not used, 1 negatives that are a true",
    ),
    "crepe.csv": (
        CREPE,
        NegativeColumns((), ("mine",)),
        {"7": {"a dog on a mat": ["a dog's mat", "a mat on a dog"]}, "8": {"a cow": []}},
        "mine",
        "2 of type mine, 2 captions of a part of an image (x, y, width, height)",
    ),
    "sugarcrepe.json": (
        json.dumps(SUGARCREPE, indent=1),
        NegativeColumns(),
        {str(n): {f"It is {n}.": [f"It is {n}0."]} for n in range(2)},
        "negative",
        "2 of type negative",
    ),
    "own.jsonl": (
        OWN,
        NegativeColumns(("false ones",), ("llm-2",)),
        {str(n): {f"It is {n}.": [f"No {n}.", "No."]} for n in range(2)},
        "llm-2",
        "4 of type llm-2",
    ),
}


@pytest.mark.parametrize("name", WITH_NEGATIVES)
def test_negatives_of_tables_and_json_become_groups_that_are_not_proven(tmp_path, capsys, name):
    content, columns, expected, type_, summary = WITH_NEGATIVES[name]
    path = tmp_path / name
    path.write_text(content)
    images = list(read_captions(path, columns))
    assert {
        image.image_id: {g.positive: [n.caption for n in g.negatives] for g in image.groups}
        for image in images
    } == expected
    negatives = [n for image in images for group in image.groups for n in group.negatives]
    assert {(n.type, n.open_world) for n in negatives} == {(type_, True)}
    assert summary in capsys.readouterr().out


@pytest.mark.parametrize("name", LAYOUTS)
def test_captions_of_a_list_without_negatives_are_groups_with_an_empty_list(tmp_path, capsys, name):
    path = tmp_path / name
    path.write_text(LAYOUTS[name])
    images = [(i.image_id, tuple(g.positive for g in i.groups)) for i in read_captions(path)]
    assert images == EXPECTED
    assert not any(group.negatives for image in read_captions(path) for group in image.groups)
    assert "not proven false: none (--negative_columns" in capsys.readouterr().out
    assert [image_id for image_id, _ in captioned_images(path)] == [i for i, _ in EXPECTED]


def test_karpathys_file_is_read_as_captions_by_its_splits(tmp_path):
    path = tmp_path / "karpathy.json"
    path.write_text(json.dumps(KARPATHY))
    images = {i.image_id: [g.positive for g in i.groups] for i in read_captions(path)}
    assert len(images) == len(KARPATHY["images"])
    (name,) = read(path, "train")
    assert [i.image_id for i in read_captions(path, NegativeColumns(), ("train",))] == [name[0]]
    assert [n for n, _ in captioned_images(path, NegativeColumns(), ("train",))] == [name[0]]
    path.write_text('{"image_id": "1", "groups": []}\n')
    with pytest.raises(UserError, match="has no splits"):
        list(read_captions(path, NegativeColumns(), ("train",)))


def test_columns_that_are_not_there_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("filepath,title\n1.jpg,A cat.\n")
    for columns, message in {
        NegativeColumns(("foul",)): "no row has a column 'foul'",
        NegativeColumns(("foul",), ("a/b",)): "negative_type 'a/b'",
        NegativeColumns(("foul",), ("a", "b")): "2 types for 1 --negative_columns",
        NegativeColumns(("title",), ("all",)): "negative_type 'all' is the name of a mean",
    }.items():
        with pytest.raises(UserError, match=message):
            list(read_captions(path, columns))
    path.write_text('{"image_id": "1", "groups": []}\n')
    with pytest.raises(UserError, match="its negatives have types"):
        list(read_captions(path, NegativeColumns(("foul",))))


def test_no_type_of_negatives_has_the_name_of_a_mean_of_results(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("filepath,caption,all\n1.jpg,A cat.,A dog.\n")
    with pytest.raises(UserError, match="column 'all': as a type of negatives it is the name of"):
        list(read_captions(path, NegativeColumns(("all",))))
    (image,) = read_captions(path, NegativeColumns(("all",), ("foil",)))
    line = msgspec.json.encode(image).replace(b'"foil"', b'"mPC"')
    path.write_bytes(line)
    with pytest.raises(UserError, match="image 1 has negatives of the type 'mPC'"):
        list(read_captions(path))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("[]", []),
        ("", []),
        ("A cat.", ["A cat."]),
        ("[red] cat", ["[red] cat"]),
        (repr(["it's", 'say "no"', "a\\b", "ü\n"]), ["it's", 'say "no"', "a\\b", "ü\n"]),
        (json.dumps(["it's", 'say "no"', "ü"]), ["it's", 'say "no"', "ü"]),
        (f"[{', '.join(map(repr, ['a'] * 20_000))}]", ["a"] * 20_000),
    ],
)
def test_a_cell_is_a_caption_or_a_list_as_python_or_json_writes_it(cell, texts):
    assert texts_of(cell) == texts


@pytest.mark.parametrize(
    "cell",
    [
        "['a'",
        "['a', b]",
        "['a' + 'b']",
        "['a', ['b']]",
        "['a', __import__('os')]",
        "['" + "[" * 10**5,
        3,
    ],
)
def test_a_cell_is_never_evaluated(cell):
    with pytest.raises(ValueError, match=r"list of texts|not of texts|not a text"):
        texts_of(cell)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("a/b/000000000009.jpg", "a/b/000000000009"),
        ("C:\\pictures\\9.JPEG", "C:/pictures/9"),
        ("/data/../9.TIF", "data/9"),
        ("./9.webp", "9"),
        ("9", "9"),
        ("v1.2_frame", "v1.2_frame"),
        ("a.b.png", "a.b"),
    ],
)
def test_a_path_loses_its_suffix_and_leads_nowhere_upwards(file, path):
    assert path_of(file) == path
