"""Sets for zero-shot classification in the folders of torchvision, ImageNet and CLIP_benchmark."""

import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.corruptions import robustness
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.inputs import find_images, read_questions
from hnc_ds.evaluation.released.images import ImageFiles, read_image
from hnc_ds.evaluation.released.measure import Encoded, Suite, encode_questions
from hnc_ds.evaluation.released.rules import Question
from hnc_ds.evaluation.released.zero_shot import KNOWN, published, sets_in
from hnc_ds.images import read_rgb

RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def encoded_image(colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, kind, lossless=True)
    return file.getvalue()


def web_dataset(folder: Path, colours: list[tuple[tuple[int, int, int], int]]) -> None:
    put(folder / "classnames.txt", "red\nlime\nblue\n")
    put(folder / "zeroshot_classification_templates.txt", "a photo of {c}\n{c} thing\n")
    put(folder / "test/nshards.txt", "1\n")
    files = {}
    for number, (colour, label) in enumerate(colours):
        files[f"s{number:07d}.webp"] = encoded_image(colour, "WEBP")
        files[f"s{number:07d}.cls"] = str(label).encode()
    write_tar(folder / "test/0.tar", files)


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))


def by_class(folder: Path, classes: Mapping[str, list[tuple[int, int, int]]]) -> None:
    for name, colours in classes.items():
        for number, colour in enumerate(colours):
            put(folder / name / f"{number}.png", encoded_image(colour))


def pixels_of(question: Question, place: Path) -> np.ndarray:
    (image,) = question.images
    path = find_images("", {"zero-shot": place}).find(image)
    assert path is not None, image
    return np.asarray(read_rgb(read_image(path, image)))


def asked(place: Path) -> list[Question]:
    return read_questions("zero-shot", place, False)


# Pixels that differ in every channel, row and column, and two classes.
STORED = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


def cifar_pickle(protocol: int, key: str, labels: list[int]) -> bytes:
    return pickle.dumps({"data": STORED.reshape(2, -1), key: labels}, protocol)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("ten", "hundred"),
    [
        ("cifar-10-batches-bin/test_batch.bin", "cifar-100-binary/test.bin"),
        ("cifar-10-batches-py/test_batch", "cifar-100-python/test"),
    ],
)
def test_cifar_has_the_same_images_and_classes_in_both_of_its_forms(
    tmp_path: Path, ten: str, hundred: str, protocol: int
) -> None:
    rows = [row.tobytes() for row in STORED]
    if ten.endswith(".bin"):
        put(tmp_path / ten, b"".join(bytes([n]) + r for n, r in zip((3, 9), rows, strict=True)))
        two = [bytes([11, n]) + row for n, row in zip((0, 99), rows, strict=True)]
        put(tmp_path / hundred, b"".join(two))
    else:
        put(tmp_path / ten, cifar_pickle(protocol, "labels", [3, 9]))
        put(tmp_path / hundred, cifar_pickle(protocol, "fine_labels", [0, 99]))
    questions = asked(tmp_path)
    assert [(q.id, q.group, q.captions) for q in questions] == [
        (f"{ten}/0", "cifar10/3", ("cat",)),
        (f"{ten}/1", "cifar10/9", ("truck",)),
        (f"{hundred}/0", "cifar100/0", ("apple",)),
        (f"{hundred}/1", "cifar100/99", ("worm",)),
    ]
    for question, row in zip(questions, (0, 1, 0, 1), strict=True):
        assert (pixels_of(question, tmp_path) == STORED[row].transpose(1, 2, 0)).all()


def test_pickles_of_python_2_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    """Byte strings, and the array's state in one, as in the released files."""
    raw = STORED.tobytes()
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01b"
        b"tR(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tbU\x06labels"
        b"](K\x03K\x09eu."
    )
    known = pickle.loads(content, encoding="latin1")
    put(tmp_path / "cifar-10-batches-py/test_batch", content)
    questions = asked(tmp_path)
    assert [int(q.group.partition("/")[2]) for q in questions] == known["labels"]
    found = [pixels_of(question, tmp_path).transpose(2, 0, 1).ravel() for question in questions]
    assert (np.stack(found) == known["data"]).all()


def test_files_of_pixels_are_read_as_torchvision_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda _: True)
    monkeypatch.setattr(datasets.MNIST, "_check_exists", lambda _: True)
    put(tmp_path / "cifar-10-batches-py/test_batch", cifar_pickle(2, "labels", [3, 9]))
    put(
        tmp_path / "cifar-10-batches-py/batches.meta",
        pickle.dumps({"label_names": published()["cifar10"].names}),
    )
    large = np.random.default_rng(1).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    put(tmp_path / "stl10_binary/test_X.bin", large.tobytes())
    put(tmp_path / "stl10_binary/test_y.bin", bytes([1, 10]))
    grey = large[:, 0, :28, :28].tobytes()
    raw = tmp_path / "MNIST/raw"
    put(raw / "t10k-images-idx3-ubyte", struct.pack(">4i", 2051, 2, 28, 28) + grey)
    put(raw / "t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 2) + bytes([7, 0]))
    sets = {
        "cifar10": datasets.CIFAR10(tmp_path, train=False),
        "stl10": datasets.STL10(tmp_path, split="test"),
        "mnist": datasets.MNIST(tmp_path, train=False),
    }
    for name, known in sets.items():
        own = [q for q in asked(tmp_path) if q.group.startswith(f"{name}/")]
        first = 1 if name == "stl10" else 0
        assert [int(q.group.partition("/")[2]) - first for q in own] == [
            label for _, label in known
        ]
        for question, (image, _) in zip(own, known, strict=True):
            assert (pixels_of(question, tmp_path) == np.asarray(image.convert("RGB"))).all()


class Opens:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_cannot_call_anything(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-batches-py/test_batch"
    put(path, pickle.dumps({"data": Opens(tmp_path / "made"), "labels": []}))
    with pytest.raises(UserError, match=r"test_batch: not a pickle of CIFAR .*is no array"):
        asked(tmp_path)
    assert not (tmp_path / "made").exists()


def test_listed_images_are_those_of_the_test_split(tmp_path: Path) -> None:
    put(tmp_path / "food-101/meta/test.txt", "apple_pie/12\nwaffles/3\n")
    put(tmp_path / "dtd/dtd/labels/test1.txt", "polka-dotted/polka-dotted_0002.jpg\n")
    put(tmp_path / "oxford-iiit-pet/annotations/test.txt", "Maine_Coon_2 1 1 1\npug_10 2 2 1\n")
    put(
        tmp_path / "fgvc-aircraft-2013b/data/images_variant_test.txt",
        "1514522 707-320\n0747566 F-16A/B\n",
    )
    assert [(q.id, q.group, q.captions[0]) for q in asked(tmp_path)] == [
        ("fgvc-aircraft-2013b/data/images/1514522.jpg", "aircraft/707-320", "707-320"),
        ("fgvc-aircraft-2013b/data/images/0747566.jpg", "aircraft/F-16A/B", "F-16A/B"),
        ("dtd/dtd/images/polka-dotted/polka-dotted_0002.jpg", "dtd/polka-dotted", "polka-dotted"),
        ("food-101/images/apple_pie/12.jpg", "food101/apple_pie", "apple pie"),
        ("food-101/images/waffles/3.jpg", "food101/waffles", "waffles"),
        ("oxford-iiit-pet/images/Maine_Coon_2.jpg", "pets/Maine_Coon", "Maine Coon"),
        ("oxford-iiit-pet/images/pug_10.jpg", "pets/pug", "pug"),
    ]


def test_folders_have_the_names_of_their_order(tmp_path: Path) -> None:
    by_class(tmp_path / "rendered-sst2/test", {"negative": [RED], "positive": [BLUE]})
    folders = [f"{number:03d}" for number in range(102)]
    by_class(tmp_path / "caltech101/101_ObjectCategories", {name: [RED] for name in folders})
    of = {q.group: q.captions[0] for q in asked(tmp_path)}
    assert of["caltech101/000"] == "background"
    assert of["caltech101/101"] == "yin and yang symbol"
    assert of["rendered-sst2/positive"] == "positive"
    (tmp_path / "caltech101/101_ObjectCategories/extra").mkdir()
    with pytest.raises(UserError, match="101_ObjectCategories: 102 names for 103 folders"):
        asked(tmp_path)


def test_imagenet_is_known_by_its_folders_and_may_have_some_of_its_classes(tmp_path: Path) -> None:
    by_class(tmp_path / "imagenet/val", {"n01443537": [RED], "n15075141": [RED]})
    by_class(tmp_path / "sketch", {"n01440764": [RED]})
    assert [(q.id, q.group, q.captions[0]) for q in asked(tmp_path)] == [
        ("imagenet/val/n01443537/0.png", "imagenet/n01443537", "goldfish"),
        ("imagenet/val/n15075141/0.png", "imagenet/n15075141", "toilet paper"),
        ("sketch/n01440764/0.png", "sketch/n01440764", "tench"),
    ]
    assert [q.group for q in asked(tmp_path / "imagenet")] == ["n01443537", "n15075141"]
    assert [q.group for q in asked(tmp_path / "sketch")] == ["n01440764"]
    by_class(tmp_path / "sketch", {"n00000000": [RED]})
    with pytest.raises(UserError, match=r"n00000000: not a class of ImageNet's 1,000"):
        asked(tmp_path)


def test_published_names_and_templates_are_as_many_as_openai_counts() -> None:
    sizes = {name: (len(one.names), len(one.templates)) for name, one in published().items()}
    assert sizes == {
        "imagenet": (1000, 80),
        "cifar10": (10, 18),
        "cifar100": (100, 18),
        "stl10": (10, 2),
        "mnist": (10, 1),
        "caltech101": (102, 34),
        "eurosat": (10, 3),
        "food101": (101, 1),
        "dtd": (47, 8),
        "pets": (37, 1),
        "aircraft": (100, 2),
        "country211": (211, 5),
        "rendered-sst2": (2, 1),
    }
    assert set(KNOWN) == set(sizes) - {"imagenet"}
    names = published()["imagenet"].names
    assert list(names) == sorted(names)
    assert all(one.count("{}") == 1 for each in published().values() for one in each.templates)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A WebDataset folder, 3 of 4 right, one of another kind, and a folder, 1 of 2 right."""
    web_dataset(tmp_path / "wds_a", [(RED, 0), (LIME, 1), (BLUE, 2), (BLUE, 0)])
    put(tmp_path / "captions/classnames.txt", "")
    put(tmp_path / "captions/dataset_type.txt", "retrieval\n")
    by_class(tmp_path / "own", {"r": [RED], "l": [RED]})
    put(tmp_path / "own/classnames.json", json.dumps({"r": "red", "l": "lime"}))
    put(tmp_path / "own/templates.json", json.dumps(["{}"]))
    return tmp_path


def encode(model: Any, place: Path) -> tuple[Suite, Encoded]:
    encoder = Encoder(model, torch.device("cpu"), batch=4, workers=1)
    files = ImageFiles({"zero-shot": (place,)})
    questions = asked(place)
    encoded = encode_questions(
        encoder, questions, files, benchmark="zero-shot", allow_missing=False
    )
    return Suite(encoder, sets_in(place)), encoded


def test_sets_count_alike_in_their_mean_and_each_has_its_row(model: Any, suite: Path) -> None:
    classes, encoded = encode(model, suite)
    rows = {(m, g): (i.value, i.count) for m, g, i in classes.classify(encoded, 0)[0]}
    assert rows["acc1", "wds_a"] == (3 / 4, 4)
    assert rows["acc1", "own"] == (1 / 2, 2)
    assert rows["mean_per_class_recall", "wds_a"][0] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert rows["acc1_mean_over_sets", "all"] == ((3 / 4 + 1 / 2) / 2, 2)
    assert rows["acc5_mean_over_sets", "all"] == (1, 2)
    assert next(iter(rows)) == ("acc1_mean_over_sets", "all")  # shown first


def test_labels_may_have_slashes(model: Any, tmp_path: Path) -> None:
    listed = "0000000 707-320\n0000001 F/A-18\n0000002 F-16A/B\n"
    put(tmp_path / "fgvc-aircraft-2013b/data/images_variant_test.txt", listed)
    for number in range(3):
        image = tmp_path / f"fgvc-aircraft-2013b/data/images/{number:07d}.jpg"
        put(image, encoded_image(RED, "JPEG"))
    classes, encoded = encode(model, tmp_path)
    rows = {(m, g): i.count for m, g, i in classes.classify(encoded, 0)[0]}
    assert rows["acc1", "aircraft"] == 3
    assert len(classes.judge(encoded)["acc1_mean_over_sets"].right_Q) == 3


def test_a_set_does_not_have_the_name_of_a_mean(suite: Path) -> None:
    (suite / "own").rename(suite / "all")
    with pytest.raises(UserError, match="all is the name of a mean; rename this folder"):
        asked(suite)


def test_a_corrupted_suite_has_the_same_mean(model: Any, suite: Path) -> None:
    classes, encoded = encode(model, suite)
    clean = classes.judge(encoded)
    assert clean["acc1_mean_over_sets"].right_Q.mean() == pytest.approx(5 / 8)
    found = {(m, g): i.value for m, g, i in robustness(clean, [("fog", 1)], lambda _: clean, 0)}
    assert found["acc1_mean_over_sets", "fog 1"] == pytest.approx(5 / 8)
    assert found["acc1_mean_over_sets", "rPC"] == pytest.approx(1)


def test_a_folder_alone_has_no_mean_over_sets(model: Any, suite: Path) -> None:
    classes, encoded = encode(model, suite / "wds_a")
    rows = {(m, g): i.value for m, g, i in classes.classify(encoded, 0)[0]}
    assert rows["acc1", "all"] == 3 / 4
    assert {g for _, g in rows} == {"all"}
    assert [m for m, _ in rows] == ["acc1", "acc5", "ties", "mean_per_class_recall"]


def break_tar(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2 * 512 + 100] ^= 1  # a header after the first file
    path.write_bytes(content)


Damage = Callable[[Path], Any]
DAMAGES: list[tuple[Damage, str]] = [
    (lambda a: break_tar(a / "test/0.tar"), r"0\.tar: truncated or broken after 1 files"),
    (lambda a: write_tar(a / "test/0.tar", {"s0.webp": b""}), r"0\.tar: s0 is not an image with"),
    (lambda a: write_tar(a / "test/0.tar", {"s0.cls": b"3"}), r"s0\.cls is '3', not one of 3"),
    (lambda a: put(a / "test/nshards.txt", "2"), r"1\.tar: no such file of 2"),
    (lambda a: put(a / "test/nshards.txt", "-1"), r"nshards\.txt: '-1' is not a number of tars"),
    (
        lambda a: put(a / "zeroshot_classification_templates.txt", "a photo\n"),
        r"'a photo' does not have one placeholder",
    ),
    (
        lambda a: put(a.parent / "cifar-10-batches-bin/test_batch.bin", bytes(3072)),
        r"test_batch\.bin: 3,072 bytes are not images of 3,072",
    ),
    (
        lambda a: put(a.parent / "cifar-10-batches-bin/test_batch.bin", bytes([10] * 3073)),
        r"test_batch\.bin: class 10 for 1 images of 10 classes",
    ),
    (lambda a: put(a.parent / "cifar-10-batches-bin/test_batch.bin", b""), r"test_batch\.bin: "),
    (lambda a: put(a.parent / "cifar-100-python/test", b"\x80\x04."), r"python/test: not a pickle"),
    (
        lambda a: put(a.parent / "food-101/meta/test.txt", "apple pie/1\n"),
        r"test\.txt:1: 'apple pie/1' is not an image of a known class",
    ),
    (
        lambda a: put(a.parent / "dtd/dtd/labels/test1.txt", "dotted/../x\n"),
        r"test1\.txt:1: 'dotted/\.\./x' is not an image",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_what_is_wrong_is_reported_in_a_line(suite: Path, damage: Damage, message: str) -> None:
    damage(suite / "wds_a")
    with pytest.raises(UserError, match=message) as error:
        asked(suite)
    assert "\n" not in str(error.value)


def test_a_member_that_leads_out_is_refused(suite: Path) -> None:
    files = {"../s0.webp": encoded_image(RED, "WEBP"), "../s0.cls": b"0"}
    write_tar(suite / "wds_a/test/0.tar", files)
    with pytest.raises(UserError, match="leads out of its folder"):
        asked(suite)


def test_a_set_without_its_list_or_images_is_named(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(suite / "food-101/meta/train.txt", "apple_pie/1\n")
    with pytest.raises(UserError, match=r"food-101/meta/test\.txt is missing, by which food101"):
        asked(suite)
    assert len(read_questions("zero-shot", suite, allow_missing=True)) == 6
    assert "the other sets are measured" in capsys.readouterr().out
    put(suite / "food-101/meta/test.txt", "")
    with pytest.raises(UserError, match="no image of food101"):
        read_questions("zero-shot", suite, allow_missing=True)


def test_two_sets_of_one_name_and_no_set_are_reported(suite: Path, tmp_path: Path) -> None:
    put(suite / "cifar-10-batches-bin/test_batch.bin", bytes(3073))
    (suite / "wds_a").rename(suite / "cifar10")
    with pytest.raises(UserError, match="two sets are called cifar10"):
        asked(suite)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no classnames\.json and no set of images.*food-101"):
        asked(tmp_path / "empty")
    with pytest.raises(UserError, match="a set for 'retrieval'"):
        asked(suite / "captions")
