"""Collections of images, and files of images in the user's folders. No torch here.

Images may lie in files with others, and are named by both:

    FILE.parquet/ROW/COLUMN         of Hugging Face data sets; a column holds structs {bytes, path}
    FILE.tar/MEMBER                 of WebDataset folders
    cifar-10-batches-py/test_batch/NUMBER, and the other files of PIXELS: plain pixels

No other module imports pyarrow or pickle.
"""

import math
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from os.path import isfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.rules import ImageRef
from hnc_ds.images import MOST_FILE_BYTES, CorruptImage, check_size, read_image_file
from hnc_ds.installing import pip_install
from hnc_ds.reading import AGAIN, reading


class Source(NamedTuple):
    """A collection of images."""

    holds: str
    """Names of its files."""
    origin: str
    licence: str


SOURCES = {
    "coco2017": Source(
        "000000NNNNNN.jpg of val2017 (VSR: of train2017 as well)",
        "https://cocodataset.org",
        "of each photographer (Flickr)",
    ),
    "coco2014": Source(
        "COCO_val2014_000000NNNNNN.jpg", "https://cocodataset.org", "of each photographer (Flickr)"
    ),
    "coco2014-train": Source(
        "COCO_train2014_000000NNNNNN.jpg",
        "https://cocodataset.org",
        "of each photographer (Flickr)",
    ),
    "vg": Source(
        "ID.jpg of Visual Genome, in VG_100K and VG_100K_2",
        "https://homes.cs.washington.edu/~ranjay/visualgenome",
        "of each photographer (Flickr, YFCC100M)",
    ),
    "gqa": Source(
        "ID.jpg of GQA's images folder, those with n for the test part",
        "https://cs.stanford.edu/people/dorarad/gqa",
        "of each photographer (Flickr)",
    ),
    "flickr30k": Source(
        "ID.jpg", "https://shannon.cs.illinois.edu/DenotationGraph", "research only"
    ),
    "winoground": Source(
        "ex_ID_img_K.png", "https://huggingface.co/datasets/facebook/winoground", "Getty's own"
    ),
    "visual7w": Source("v7w_ID.jpg", "https://ai.stanford.edu/~yukez/visual7w", "as vg"),
    "swig": Source("VERB_N.jpg of images_512", "https://github.com/allenai/swig", "unknown"),
    "visdial": Source(
        "VisualDialog_val2018_000000NNNNNN.jpg", "https://visualdialog.org", "as coco2014"
    ),
    "whatsup": Source(
        "controlled_images/ and controlled_clevr/",
        "https://github.com/amitakamath/whatsup_vlms",
        "MIT",
    ),
    "bivlc": Source("in the files of --data", "with the captions", "COCO's, and MIT"),
    "zero-shot": Source("in the folder of --data", "any", "of each set"),
    "mmvp": Source("TYPE/ID.jpg", "https://huggingface.co/datasets/MMVP/MMVP_VLM", "MIT"),
    "voc2007": Source(
        "ID.jpg of JPEGImages, of the test archive",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007",
        "of each photographer (Flickr)",
    ),
    "eqben": Source(
        "the folders eqbenag, eqbenyoucook2, ...",
        "https://github.com/Wangt-CN/EqBen",
        "of each video and generator",
    ),
    "svo": Source(
        "ID.jpg, the image of pos_url or neg_url",
        "https://github.com/google-deepmind/svo_probes",
        "of each site",
    ),
}
"""By name in items and --images."""


def read_image(path: Path, image: ImageRef) -> bytes:
    """Bytes of an image at the path from ``ImageFiles.find``.

    Raises:
        CorruptImage: The image is too large.
        OSError: The file cannot be read.
        UserError: The file is damaged.
        ValueError: The file does not hold the image.
    """
    if image_file(image.name) is not None:
        return image_bytes(path, image.name)
    return frame_bytes(path) if path.suffix == FRAME else read_image_file(path)


def leads_out(name: str) -> bool:
    """Whether a file name leads out of its folder."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class ImageFiles:
    """Finds images in the user's folders.

    Args:
        folders: Folders by source, searched in order.
    """

    def __init__(self, folders: Mapping[str, Sequence[Path]]) -> None:
        self._folders = folders

    def folders(self) -> dict[str, tuple[str, ...]]:
        """Absolute folders by source."""
        return {
            source: tuple(str(folder.resolve()) for folder in own)
            for source, own in self._folders.items()
        }

    def find(self, image: ImageRef) -> Path | None:
        """File of an image, or the file that holds it with others; None if it is missing.

        Raises:
            UserError: The name leads out of its folder.
        """
        name = PurePosixPath(image.name)
        if leads_out(image.name):
            raise UserError(f"image '{image.name}' leads out of its folder; correct its file")
        file = image_file(image.name) or name
        paths = (folder / file for folder in self._folders.get(image.source, ()))
        return next((path for path in paths if isfile(path)), None)


SUFFIX = ".parquet"


def read_texts(path: Path, columns: tuple[str, ...], benchmark: str) -> list[dict[str, str]]:
    """Rows of text columns.

    Raises:
        UserError: pyarrow is missing, the file is invalid, or it lacks a column or a value.
    """
    file = _open(path, benchmark)
    if lacking := [name for name in columns if name not in file.schema_arrow.names]:
        raise UserError(f"{path}: no column {', '.join(lacking)}; is it a file of {benchmark}?")
    with reading(path, what="cannot be read as parquet", by="pyarrow"):
        rows: list[dict[str, str]] = file.read(columns=list(columns)).to_pylist()
    for number, row in enumerate(rows):
        if wrong := [name for name in columns if not isinstance(row[name], str)]:
            raise UserError(f"{path}: row {number}: {wrong[0]} is not text; copy the file again")
    return rows


def image_file(name: str) -> str | None:
    """File in the name of an image that lies with others; None for a file of its own."""
    parents = [parent.as_posix() for parent in PurePosixPath(name).parents]
    held = (p for p in reversed(parents) if p.endswith((SUFFIX, TAR)) or pixels_of(p))
    return next(held, None)


def image_bytes(path: Path, name: str) -> bytes:
    """The encoded image of that name in a file with others.

    Raises:
        ValueError: There is no such image.
        CorruptImage: It is too large.
        OSError: The file cannot be read.
        UserError: The file is damaged.
    """
    if path.suffix == SUFFIX:
        return _of_parquet(path, *PurePosixPath(name).parts[-2:])
    if path.suffix == TAR:
        return member_bytes(path, name.removeprefix(f"{image_file(name)}/"))
    number, (pixels_NHWC, _) = int(PurePosixPath(name).name), read_pixels(path)
    if number >= len(pixels_NHWC):
        raise ValueError(f"{path}: has no image {number}")
    return _png(pixels_NHWC[number])


def _of_parquet(path: Path, row: str, column: str) -> bytes:
    start = 0
    file = _cached_file(path)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if int(row) < start + rows:
            value = _images(path, group, column)[int(row) - start].as_py()
            data = value.get("bytes") if isinstance(value, dict) else None
            if not isinstance(data, bytes):
                raise ValueError(f"{path}: row {row} has no image in {column}")
            return data
        start += rows
    raise ValueError(f"{path}: has no row {row}")


@lru_cache(maxsize=2)
def _images(path: Path, group: int, column: str) -> Any:
    """A column of a row group, cached because neighbouring rows are read in turn."""
    return _cached_file(path).read_row_group(group, columns=[column]).column(0)


@lru_cache(maxsize=8)
def _cached_file(path: Path) -> Any:
    return _open(path, path.name)


def _open(path: Path, benchmark: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{benchmark}: parquet files need pyarrow; {pip_install('parquet')}"
        ) from error
    with reading(path, what="cannot be read as parquet", by="pyarrow"):
        return pyarrow.parquet.ParquetFile(path)


TAR = ".tar"


def member_bytes(path: Path, name: str) -> bytes:
    """Content of a file in a tar.

    Raises:
        ValueError: There is no such file.
        CorruptImage: It is too large for an image.
        OSError, UserError: The tar cannot be read.
    """
    if name not in (members := tar_members(path)):
        raise ValueError(f"{path}: has no {name}")
    start, size = members[name]
    if size > MOST_FILE_BYTES:
        raise CorruptImage(f"{path}: {name} has {size / 1e9:.1f} GB, too large for an image")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


@lru_cache(maxsize=64)
def tar_members(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and bytes of every file in a tar, by name.

    Raises:
        UserError: The tar is damaged, ends too early, or repeats a name.
    """
    found: dict[str, tuple[int, int]] = {}
    with reading(path), tarfile.open(path, "r:") as tar, path.open("rb") as file:
        for member in tar:
            if member.isreg() and not member.issparse():
                if member.name in found:
                    raise UserError(f"{path}: {member.name} occurs twice; {AGAIN}")
                found[member.name] = (member.offset_data, member.size)
        file.seek(tar.offset)  # tarfile takes a damaged header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise UserError(f"{path}: truncated or broken after {len(found):,} files; {AGAIN}")
    return found


class Pixels(NamedTuple):
    """Layout of a file of images of one size, not compressed."""

    shape: tuple[int, ...]
    """Of an image as it is stored."""
    axes: tuple[int, ...]
    """Order of its axes that gives [height, width] or [height, width, 3]."""
    start: int = 0
    """Bytes before the first image."""
    labels: int = 0
    """Bytes before each image, the last of which is its class."""
    key: str = ""
    """Of the classes in a pickle; empty for a binary file."""


_ROWS = (1, 2, 0)
PIXELS = {
    "cifar-10-batches-bin/test_batch.bin": Pixels((3, 32, 32), _ROWS, labels=1),
    "cifar-10-batches-py/test_batch": Pixels((3, 32, 32), _ROWS, key="labels"),
    "cifar-100-binary/test.bin": Pixels((3, 32, 32), _ROWS, labels=2),
    "cifar-100-python/test": Pixels((3, 32, 32), _ROWS, key="fine_labels"),
    "stl10_binary/test_X.bin": Pixels((3, 96, 96), (2, 1, 0)),
    "MNIST/raw/t10k-images-idx3-ubyte": Pixels((28, 28), (0, 1), start=16),
}
"""By the end of the path, as torchvision lays them down."""


def pixels_of(path: Path | str) -> Pixels | None:
    """Layout of a file of PIXELS."""
    name = path if isinstance(path, str) else path.as_posix()
    return next((one for end, one in PIXELS.items() if f"/{name}".endswith(f"/{end}")), None)


@lru_cache(maxsize=4)
def read_pixels(path: Path) -> tuple[np.ndarray, list[int]]:
    """Images uint8 [N, H, W] or [N, H, W, 3], and their classes if the file has them.

    Raises:
        UserError: The file is damaged, or holds no whole number of images.
    """
    layout = pixels_of(path)
    assert layout is not None
    size = math.prod(layout.shape)
    if layout.key:
        flat, labels = _unpickled(path, layout.key)
    else:
        with reading(path, by="numpy"):
            flat, labels = np.memmap(path, np.uint8, "r")[layout.start :], list[int]()
    width = layout.labels + size
    if not flat.size or flat.size % width or (layout.key and flat.size != size * len(labels)):
        raise UserError(f"{path}: {flat.size:,} bytes are not images of {size:,}; {AGAIN}")
    rows_NB = flat.reshape(-1, width)
    if layout.labels:
        labels = rows_NB[:, layout.labels - 1].tolist()
    stored = rows_NB[:, layout.labels :].reshape(-1, *layout.shape)
    return stored.transpose(0, *(axis + 1 for axis in layout.axes)), labels


def _unpickled(path: Path, key: str) -> tuple[np.ndarray, list[int]]:
    """Pixels and classes of one of CIFAR's pickles."""
    with reading(path, what="not a pickle of CIFAR", by="pickle"), path.open("rb") as file:
        content = _Unpickler(file, encoding="bytes").load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        data, labels = named["data"].content(), named[key]
        if not all(type(label) is int for label in labels):
            raise ValueError(f"{key} are not numbers")
        return np.frombuffer(data, np.uint8), labels


class _Array:
    """Stands for NumPy's array, type and constructor while a pickle is read; keeps its bytes."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[object, ...] = ()

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self._state = state

    def content(self) -> bytes:
        """Bytes of the array. Raises ValueError if it has none."""
        if not self._state or not isinstance(data := self._state[-1], bytes):
            raise ValueError("the data are not an array of bytes")
        return data


class _Unpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays; calls nothing that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for NumPy's names, and the encoder of bytes in Python 3's protocol 2."""
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        if (module, name) == ("_codecs", "encode"):
            return _latin_1
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")


def _latin_1(text: str, _: object = "") -> bytes:
    return text.encode("latin-1")


FRAME = ".npy"


def frame_bytes(path: Path) -> bytes:
    """A frame that is an array [height, width, 3] in the order blue, green, red, encoded.

    Raises:
        CorruptImage: It is too large.
        OSError, ValueError: The file cannot be read, or is not such an array.

    Source: EqBen's frames of YouCook2 (src/eqben/eqben_utils.py).
    """
    pixels_HW3 = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3:
        raise ValueError(f"{path}: not an image of bytes in three colours")
    check_size("", pixels_HW3.shape[1], pixels_HW3.shape[0])
    return _png(pixels_HW3[:, :, ::-1])


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=0)
    return file.getvalue()
