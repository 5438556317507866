"""Is everything there that packing needs? ``hnc-ds pack ... --check`` says so in seconds.

Looks for the image of every id of the captions, decodes a sample of them, and compares sizes with
the free disk space. Writes nothing.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hnc_ds.captions.formats.image_ids import captioned_images
from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.format import INDEX_NAME, read_index
from hnc_ds.shards.source import SOURCE_NAME, fingerprint, recorded_source
from hnc_ds.shards.write_shard import file_names

DECODED = 100
"""Images that are decoded, spread evenly over the captions file."""

NAMED = 5
"""Most names that a message lists."""

TAR_BYTES = 2048
"""For the two headers of a sample and the filling up to whole blocks, at most."""


class _Found(NamedTuple):
    """What the image folder holds for a captions file."""

    files: dict[str, int]
    """File name -> bytes, in the order of the captions."""
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
    problems = [*_missing(config, found), *_damaged(config, found)]
    needed = sum(found.files.values()) + found.caption_bytes + TAR_BYTES * len(found.files)
    state, refusal = _state(config)
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
        f"{config.images}, {min(DECODED, len(found.files))} of them decoded; about "
        f"{_size(needed)} of shards, {_size(free)} free; {config.out}: {state}"
    )


def _find(config: PackConfig) -> _Found:
    if not config.images.is_dir():
        raise UserError(f"{config.images}: no such folder; --images names the folder of ID.jpg")
    with os.scandir(config.images) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    captions: dict[str, int] = {}
    for image_id, size in captioned_images(config.captions):
        if image_id in captions:
            raise UserError(f"{config.captions}: image {image_id} occurs twice")
        captions[image_id] = size
    if not captions:
        raise UserError(f"{config.captions}: holds no captions, so there is nothing to pack")
    names = {
        image_id: next((name for name in file_names(image_id) if name in sizes), None)
        for image_id in captions
    }
    return _Found(
        files={name: sizes[name] for name in names.values() if name},
        missing=[image_id for image_id, name in names.items() if name is None],
        caption_bytes=sum(captions.values()),
    )


def _missing(config: PackConfig, found: _Found) -> list[str]:
    if not found.missing:
        return []
    images = len(found.files) + len(found.missing)
    inside = "" if found.files else _folders_inside(config.images)
    return [
        f"{config.images}: {len(found.missing):,} of {images:,} images missing, e.g. "
        f"{_listed([f'{name}.jpg' for name in found.missing])}{inside}; check --images, or get "
        "them (docs/data.md says from where)"
    ]


def _folders_inside(folder: Path) -> str:
    """Archives are often unpacked one folder too deep."""
    with os.scandir(folder) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    return f"; it has the folders {_listed(folders)}" if folders else ""


def _damaged(config: PackConfig, found: _Found) -> list[str]:
    names = list(found.files)
    looked_at = min(DECODED, len(names))
    sample = [names[i * len(names) // looked_at] for i in range(looked_at)]
    problems = []
    if empty := [name for name, size in found.files.items() if size == 0]:
        problems.append(f"{config.images}: {len(empty):,} empty files, e.g. {_listed(empty)}")
    broken = [name for name in sample if found.files[name] and not _decodes(config.images / name)]
    if broken:
        problems.append(
            f"{config.images}: of {len(sample)} images looked at {len(broken)} did not decode as "
            f"JPEG, e.g. {_listed(broken)}; get them again"
        )
    return problems


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path, formats=["JPEG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _free(out: Path) -> int:
    """Bytes that shards may fill: what is free, and what shards in the folder take already.

    Those stay and need not be written, or are removed before others are written.
    """
    folder = out
    while not folder.exists():
        folder = folder.parent
    there = sum(shard.stat().st_size for shard in out.glob("shard-*.tar"))
    return shutil.disk_usage(folder).free + there


def _state(config: PackConfig) -> tuple[str, list[str]]:
    """What the output folder is to this pack, and why it would be refused."""
    out = config.out
    if out.exists() and not out.is_dir():
        return "", [f"{out}: is a file; --out names a folder"]
    shards = len(list(out.glob("shard-*.tar")))
    finished = recorded_source(out / INDEX_NAME)
    unfinished = recorded_source(out / SOURCE_NAME)
    if not shards or (finished or unfinished) is None:
        return "no shards yet", []
    if fingerprint(config) != (finished or unfinished):
        if finished and not config.overwrite:
            return "", [
                f"{out}: holds shards of other captions, images or settings; choose another "
                "--out, or replace them with --overwrite"
            ]
        return f"shards of something else, which will be replaced: {shards}", []
    return _finished(out) if finished else f"shards done already: {shards}", []


def _finished(out: Path) -> str:
    try:
        return f"packed already, {read_index(out).samples:,} images"
    except UserError as error:
        return f"packed, but {error}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED])


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
