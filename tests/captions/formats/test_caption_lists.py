"""Lists of captions in every layout, and what is said of broken ones."""

import gzip
import json
from collections import Counter

import pytest

from hnc_ds.captions.formats.caption_lists import image_id_of, read_caption_list
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


def read(path, *splits):
    return list(read_caption_list(path, splits, Counter()))


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
    assert [image.image_id for image in read(path)] == [*dict(EXPECTED), "000000000030"]
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
    assert list(read_caption_list(path, (), irregular)) == EXPECTED
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
        ("url,title\n1.jpg,A cat.\n", "line 1: no column of images"),
        ("filepath,title\n1.jpg,A cat.\n2.jpg\n", "line 3: fewer columns than the header"),
        ("filepath,title\n,A cat.\n", "line 2: no image is named"),
        (
            "filepath,title\n1.jpg,A cat.\n2.jpg,A dog.\n1.jpg,A bird.\n",
            "line 4: image '1' has captions further above",
        ),
        (
            "filepath,title\na/1.jpg,A cat.\nb/1.jpg,A dog.\n",
            "line 3: image '1' has captions further above",
        ),
        (b"filepath,title\n1.jpg,A cat.\n2.jpg,\xff\xfe\n", "not UTF-8"),
        (b"\x1f\x8b\x08\x00cut off", "broken gzip"),
        (gzip.compress(b'{"image": "1.jpg", "caption": "A cat."}')[:-9], "broken gzip"),
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


def test_lines_are_read_one_by_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "1.jpg", "caption": "A"}\n{"image": "2.jpg", "caption": "B"}\n{{{')
    images = read_caption_list(path, (), Counter())
    assert next(images).image_id == "1"
    with pytest.raises(UserError, match="line 3"):
        next(images)


@pytest.mark.parametrize(
    ("file", "image_id"),
    [
        ("a/b/000000000009.jpg", "000000000009"),
        ("C:\\pictures\\9.JPEG", "9"),
        ("9", "9"),
        ("v1.2_frame", "v1.2_frame"),
        ("a.b.png", "a.b"),
    ],
)
def test_an_image_is_called_by_its_file_without_folder_and_suffix(file, image_id):
    assert image_id_of(file) == image_id
