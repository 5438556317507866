"""The inputs of a shard folder: what it was packed from, and a check before packing.

Inputs are recorded in source.json of an unfinished folder, and in index.json of a finished one;
they decide which of its files may be kept. ``hnc-ds pack ... --check`` takes seconds and writes
nothing: it looks up the image of every caption's id, decodes a sample of images, and compares sizes
with the free disk space.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from hnc_ds.atomic_files import is_temporary, writing
from hnc_ds.captions.formats.caption_lists import digest_of_captions
from hnc_ds.captions.formats.caption_rows import NegativeColumns
from hnc_ds.captions.formats.captions import captioned_images, check_is_file
from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import JPEG, CorruptImage, as_rgb, open_image
from hnc_ds.shards.format import FORMAT_VERSION, INDEX_NAME, read_index, shard_file
from hnc_ds.shards.image_folders import ImageFile, ImageFolders, bytes_of, read_image

SOURCE_NAME = "source.json"
_OUR_FILES = re.compile(r"shard-\d{6,}\.(tar|json)(\.\d+\.tmp)?|(index|source)\.json\.\d+\.tmp")


class _Sourced(msgspec.Struct):
    """The common part of source.json and index.json."""

    source: dict[str, str]


def folders_of(config: PackConfig) -> ImageFolders:
    """The images of --images, else those that the captions hold.

    Raises:
        UserError: The captions do not exist; as ``ImageFolders``.
    """
    check_is_file(config.captions)
    return ImageFolders(config.images, config.captions, config.split)


def fingerprint(config: PackConfig, images: str) -> dict[str, str]:
    """Everything that shards depend on: the captions' bytes, and the names, sizes and times of
    images and archives. Hashing the images' bytes would read everything twice.

    Args:
        config: Captions and settings.
        images: ``ImageFolders.digest``.

    Raises:
        UserError: The captions cannot be read.
    """
    columns = [*config.negative_columns, ":", *config.negative_type]
    return {
        **({"negatives": " ".join(columns)} if len(columns) > 1 else {}),
        **({"split": " ".join(sorted(config.split))} if config.split else {}),
        "captions": digest_of_captions(config.captions),
        "images": images,
        "samples_per_shard": str(config.samples_per_shard),
        "format": str(FORMAT_VERSION),
    }


def recorded_source(path: Path) -> dict[str, str] | None:
    """The source in a source.json or index.json; None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Sourced).source
    except (OSError, ValueError, RecursionError):  # msgspec's are ValueErrors
        return None


def is_finished(config: PackConfig, source: dict[str, str]) -> bool:
    """Whether the folder already holds all shards of this source.

    A finished folder that lost a shard becomes an unfinished one.

    Raises:
        UserError: It holds shards of another source, without --overwrite.
    """
    index = config.out / INDEX_NAME
    if not index.exists():
        return False
    if recorded_source(index) == source:
        try:
            read_index(config.out)
        except UserError as error:
            print(f"pack: {error}; doing that now")
            with suppress(FileNotFoundError):  # another part was faster
                index.replace(config.out / SOURCE_NAME)
            return False
        return True
    if not config.overwrite:
        raise UserError(
            f"{config.out}: holds shards of other captions, images or settings; "
            "choose another --out, or replace them with --overwrite"
        )
    return False


def prepare(out: Path, source: dict[str, str], shared: bool = False) -> bool:
    """Create ``out``, and remove shards of other sources from it.

    Args:
        out: Output folder.
        source: The source of this run.
        shared: Other processes write shards of this source there; nothing is removed.

    Returns:
        Whether there is work; another process may have finished the folder meanwhile.

    Raises:
        UserError: It cannot be created or written, or is shared and holds shards of another source.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    # Listed before the source is read: other parts write source.json before their shards.
    existing = _our_files(out)
    keep = recorded_source(out / SOURCE_NAME) == source
    if shared:
        if keep:
            return True
        if recorded_source(out / INDEX_NAME) == source:
            return False
        if not all(map(is_temporary, existing)):
            raise UserError(
                f"{out}: holds unfinished shards of something else; remove them to begin"
            )
    else:
        (out / INDEX_NAME).unlink(missing_ok=True)
        for path in existing:
            if is_temporary(path) or not keep:
                path.unlink()
    with shard_file(out / SOURCE_NAME) as file:
        file.write(msgspec.json.encode(_Sourced(source)))
    return True


def _our_files(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if _OUR_FILES.fullmatch(path.name))


def leave_no_trace(out: Path) -> None:
    """Remove the folder unless it holds shards or other files."""
    if not _our_files(out):
        (out / SOURCE_NAME).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()


DECODED = 100
"""Images to decode, spread evenly over the captions file."""

NAMED = 5
"""Maximum number of names in a message."""

TAR_BYTES = 2048
"""Upper bound for a sample's two headers and padding."""


class _Found(NamedTuple):
    """Image files of a captions file."""

    folders: ImageFolders
    files: dict[ImageFile, int]
    """File sizes in bytes, in the order of the captions."""
    missing: list[str]
    """Image ids without a file."""
    caption_bytes: int


def check_pack(config: PackConfig) -> str:
    """Check the inputs of packing.

    Returns:
        A line that describes the inputs.

    Raises:
        UserError: All problems in one line: captions or images missing, empty or not decodable,
            too little disk space, a folder of other shards.
    """
    found = _find(config)
    broken, reencoded = _decode_sample(found)
    problems = [*_missing(found), *_empty(found), *broken]
    needed = sum(found.files.values()) + found.caption_bytes + TAR_BYTES * len(found.files)
    state, conflicts = _state(config, found.folders.digest)
    free = _free(config.out)
    if needed > free:
        problems.append(
            f"{config.out}: {_size(needed)} needed, {_size(free)} free; make room or name "
            "another --out"
        )
    problems += conflicts
    if problems:
        raise UserError("; ".join(problems))
    return (
        f"pack: complete: all {len(found.files):,} images of {config.captions} are in "
        f"{found.folders}, {min(DECODED, len(found.files))} of them decoded{reencoded}; about "
        f"{_size(needed)} of shards, {_size(free)} free; {config.out}: {state}"
    )


def _find(config: PackConfig) -> _Found:
    folders = folders_of(config)
    captions: dict[str, int] = {}
    columns = NegativeColumns(config.negative_columns, config.negative_type)
    for image_id, size in captioned_images(config.captions, columns, config.split):
        if image_id in captions:
            raise UserError(f"{config.captions}: image {image_id} occurs twice")
        captions[image_id] = size
    if not captions:
        raise UserError(f"{config.captions}: holds no captions, so there is nothing to pack")
    files = {image_id: folders.find(image_id) for image_id in captions}
    return _Found(
        folders=folders,
        files={own[0]: bytes_of(own[0]) for own in files.values() if own},
        missing=[image_id for image_id, own in files.items() if not own],
        caption_bytes=sum(captions.values()),
    )


def _missing(found: _Found) -> list[str]:
    if not found.missing:
        return []
    images = len(found.files) + len(found.missing)
    return [
        f"{found.folders}: {len(found.missing):,} of {images:,} images missing, e.g. "
        f"{_listed([f'{name}.jpg' for name in found.missing])}; check --images, or get "
        "them (docs/data.md lists sources)"
    ]


def _empty(found: _Found) -> list[str]:
    empty = [path.name for path, size in found.files.items() if size == 0]
    return [f"{found.folders}: {len(empty):,} empty files, e.g. {_listed(empty)}"] if empty else []


def _decode_sample(found: _Found) -> tuple[list[str], str]:
    """Decode a sample of the images; returns problems, and a note on images that are no JPEG."""
    paths = list(found.files)
    count = min(DECODED, len(paths))
    sample = [paths[i * len(paths) // count] for i in range(count)]
    kinds = {path: _decoded(path) for path in sample if found.files[path]}
    broken = [f"{path.name} ({why})" for path, why in kinds.items() if isinstance(why, str)]
    others = sum(kind is False for kind in kinds.values())
    note = f", {others} of which are no JPEG and will be encoded as one" if others else ""
    if not broken:
        return [], note
    return [
        f"{found.folders}: {len(broken)} of {len(sample)} checked images did not decode, e.g. "
        f"{_listed(broken)}; get them again"
    ], note


def _decoded(file: ImageFile) -> bool | str:
    """Whether the file is a JPEG, or the reason why it cannot be decoded."""
    try:
        image = open_image(read_image(file) or b"")
        as_rgb(image)
    except CorruptImage as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)
    return image.format in JPEG


def _free(out: Path) -> int:
    """Bytes available for shards: free space, and the size of shards already in the folder, which
    are kept or removed first."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    existing = sum(shard.stat().st_size for shard in out.glob("shard-*.tar"))
    return shutil.disk_usage(folder).free + existing


def _state(config: PackConfig, images: str) -> tuple[str, list[str]]:
    """A description of the output folder, and problems with it."""
    out = config.out
    if out.exists() and not out.is_dir():
        return "", [f"{out}: is a file; --out names a folder"]
    shards = len(list(out.glob("shard-*.tar")))
    finished = recorded_source(out / INDEX_NAME)
    unfinished = recorded_source(out / SOURCE_NAME)
    if not shards or (finished or unfinished) is None:
        return "no shards yet", []
    if fingerprint(config, images) != (finished or unfinished):
        if finished and not config.overwrite:
            return "", [
                f"{out}: holds shards of other captions, images or settings; choose another "
                "--out, or replace them with --overwrite"
            ]
        return f"shards of something else, which will be replaced: {shards}", []
    return _finished(out) if finished else f"shards already done: {shards}", []


def _finished(out: Path) -> str:
    try:
        return f"packed already, {counted(read_index(out).samples, 'image')}"
    except UserError as error:
        return f"packed, but {error}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED])


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
