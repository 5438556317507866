"""Is everything there that packing needs? ``hnc-ds pack ... --check`` says so in seconds.

Looks for the image of every id of the captions, decodes a sample of them, and compares sizes with
the free disk space. Writes nothing.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hnc_ds.captions.formats.image_ids import captioned_images
from hnc_ds.captions.formats.negative_columns import NegativeColumns
from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.images import JPEG, CorruptImage, as_rgb, open_image, read_image_file
from hnc_ds.shards.folders import ImageFolders
from hnc_ds.shards.format import INDEX_NAME, read_index
from hnc_ds.shards.source import SOURCE_NAME, fingerprint, recorded_source

DECODED = 100
"""Images that are decoded, spread evenly over the captions file."""

NAMED = 5
"""Most names that a message lists."""

TAR_BYTES = 2048
"""For the two headers of a sample and the filling up to whole blocks, at most."""


class _Found(NamedTuple):
    """What the image folder holds for a captions file."""

    folders: ImageFolders
    files: dict[Path, int]
    """File -> bytes, in the order of the captions."""
    missing: list[str]
    """Ids without a file."""
    caption_bytes: int


def check_pack(config: PackConfig) -> str:
    """Say whether packing with these settings would find everything it needs.

    Returns:
        What is there, in one line.

    Raises:
        UserError: All that stands in the way, in one line: no captions or images, images missing,
            empty or not decodable, too little disk space, a folder of other shards.
    """
    found = _find(config)
    broken, reencoded = _looked_at(found)
    problems = [*_missing(found), *_empty(found), *broken]
    needed = sum(found.files.values()) + found.caption_bytes + TAR_BYTES * len(found.files)
    state, refusal = _state(config, found.folders.digest)
    free = _free(config.out)
    if needed > free:
        problems.append(
            f"{config.out}: {_size(needed)} needed, {_size(free)} free; make room or name "
            "another --out"
        )
    problems += refusal
    if problems:
        raise UserError("; ".join(problems))
    return (
        f"pack: complete: all {len(found.files):,} images of {config.captions} are in "
        f"{found.folders}, {min(DECODED, len(found.files))} of them decoded{reencoded}; about "
        f"{_size(needed)} of shards, {_size(free)} free; {config.out}: {state}"
    )


def _find(config: PackConfig) -> _Found:
    folders = ImageFolders(config.images)
    captions: dict[str, int] = {}
    columns = NegativeColumns(config.negative_columns, config.negative_type)
    for image_id, size in captioned_images(config.captions, columns):
        if image_id in captions:
            raise UserError(f"{config.captions}: image {image_id} occurs twice")
        captions[image_id] = size
    if not captions:
        raise UserError(f"{config.captions}: holds no captions, so there is nothing to pack")
    files = {image_id: folders.find(image_id) for image_id in captions}
    return _Found(
        folders=folders,
        files={own[0]: own[0].stat().st_size for own in files.values() if own},
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
        "them (docs/data.md says from where)"
    ]


def _empty(found: _Found) -> list[str]:
    empty = [path.name for path, size in found.files.items() if size == 0]
    return [f"{found.folders}: {len(empty):,} empty files, e.g. {_listed(empty)}"] if empty else []


def _looked_at(found: _Found) -> tuple[list[str], str]:
    """Decode a sample: what is broken, and how many are no JPEG, in words."""
    paths = list(found.files)
    looked_at = min(DECODED, len(paths))
    sample = [paths[i * len(paths) // looked_at] for i in range(looked_at)]
    kinds = {path: _decoded(path) for path in sample if found.files[path]}
    broken = [f"{path.name} ({why})" for path, why in kinds.items() if isinstance(why, str)]
    others = sum(kind is False for kind in kinds.values())
    told = f", {others} of which are no JPEG and will be encoded as one" if others else ""
    if not broken:
        return [], told
    return [
        f"{found.folders}: of {len(sample)} images looked at {len(broken)} did not decode, e.g. "
        f"{_listed(broken)}; get them again"
    ], told


def _decoded(path: Path) -> bool | str:
    """Whether it is a JPEG; or why it cannot be decoded."""
    try:
        image = open_image(read_image_file(path))
        as_rgb(image)
    except CorruptImage as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)
    return image.format in JPEG


def _free(out: Path) -> int:
    """Bytes that shards may fill: what is free, and what shards in the folder take already.

    Those stay and need not be written, or are removed before others are written.
    """
    folder = out
    while not folder.exists():
        folder = folder.parent
    there = sum(shard.stat().st_size for shard in out.glob("shard-*.tar"))
    return shutil.disk_usage(folder).free + there


def _state(config: PackConfig, images: str) -> tuple[str, list[str]]:
    """What the output folder is to this pack, and why it would be refused."""
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
    return _finished(out) if finished else f"shards done already: {shards}", []


def _finished(out: Path) -> str:
    try:
        return f"packed already, {counted(read_index(out).samples, 'image')}"
    except UserError as error:
        return f"packed, but {error}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED])


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
