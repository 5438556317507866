"""Collections of pictures, and how a picture is found in the user's folders. No torch here."""

from collections.abc import Mapping, Sequence
from os.path import isfile  # False as well for names that no file can have
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hnc_ds.errors import UserError
from hnc_ds.evaluation.parquet import picture_bytes, picture_file
from hnc_ds.evaluation.question import ImageRef
from hnc_ds.images import read_image_file


class Source(NamedTuple):
    """A collection of pictures."""

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
    "bivlc": Source("in the files that --data names", "with the captions", "COCO's, and MIT"),
    "zero-shot": Source("in the folder that --data names", "wherever it is from", "of each set"),
    "mmvp": Source("TYPE/ID.jpg", "https://huggingface.co/datasets/MMVP/MMVP_VLM", "MIT"),
}
"""By the names that items and --images give them."""


def read_picture(path: Path, image: ImageRef) -> bytes:
    """The encoded picture that ``ImageFiles.find`` found.

    Raises:
        CorruptImage: It is too large.
        OSError: It cannot be read.
        ValueError: The file that should hold it does not.
    """
    if picture_file(image.name) is None:
        return read_image_file(path)
    return picture_bytes(path, image.name)


def leads_out(name: str) -> bool:
    """Whether the name of a file leads out of the folder that it is looked for in."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class ImageFiles:
    """Finds pictures in the user's folders.

    Args:
        folders: By source, looked through in their order.
    """

    def __init__(self, folders: Mapping[str, Sequence[Path]]) -> None:
        self._folders = folders

    def told(self) -> dict[str, tuple[str, ...]]:
        """Absolute folders by source."""
        return {
            source: tuple(str(folder.resolve()) for folder in own)
            for source, own in self._folders.items()
        }

    def find(self, image: ImageRef) -> Path | None:
        """The file of a picture, or the one that holds it with others; None where there is none.

        Raises:
            UserError: A name that leads out of its folder.
        """
        name = PurePosixPath(image.name)
        if leads_out(image.name):
            raise UserError(f"image '{image.name}' leads out of its folder; correct its file")
        file = picture_file(image.name) or name
        places = (folder / file for folder in self._folders.get(image.source, ()))
        return next((place for place in places if isfile(place)), None)
