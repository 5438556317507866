"""What a shard folder was made from, and which of its files may therefore stay.

The source of an unfinished folder is in source.json, that of a finished one in index.json.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from hnc_ds.config import PackConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.format import FORMAT_VERSION, INDEX_NAME, read_index
from hnc_ds.shards.write_shard import shard_file
from hnc_ds.whole_files import is_temporary

SOURCE_NAME = "source.json"
_OUR_FILES = re.compile(r"shard-\d{6,}\.(tar|json)(\.\d+\.tmp)?|(index|source)\.json\.\d+\.tmp")


class _Sourced(msgspec.Struct):
    """The part that source.json and index.json share."""

    source: dict[str, str]


def fingerprint(config: PackConfig, images: str) -> dict[str, str]:
    """What the shards depend on: the captions' bytes; names, sizes and times of the images.

    Args:
        config: Captions and settings.
        images: ``ImageFolders.digest``.

    Hashing the images' bytes too would read everything twice; a changed image of old size and
    old time goes unseen.

    Raises:
        UserError: No captions file.
    """
    if not config.captions.is_file():
        raise UserError(f"{config.captions}: no such file; make it with 'hnc-ds generate'")
    captions = hashlib.sha256()
    with config.captions.open("rb") as file:
        while block := file.read(1 << 20):
            captions.update(block)
    columns = [*config.negative_columns, ":", *config.negative_type]
    return {
        **({"negatives": " ".join(columns)} if len(columns) > 1 else {}),
        "captions": captions.hexdigest(),
        "images": images,
        "samples_per_shard": str(config.samples_per_shard),
        "format": str(FORMAT_VERSION),
    }


def recorded_source(path: Path) -> dict[str, str] | None:
    """What a source.json or index.json says its folder was made from; None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Sourced).source
    except (OSError, ValueError, RecursionError):  # msgspec's are ValueErrors
        return None


def is_finished(config: PackConfig, source: dict[str, str]) -> bool:
    """Whether the folder already holds what is asked for, whole.

    A finished folder that lost a shard becomes an unfinished one.

    Raises:
        UserError: It holds shards of another source, and overwriting was not asked for.
    """
    index = config.out / INDEX_NAME
    if not index.exists():
        return False
    if recorded_source(index) == source:
        try:
            read_index(config.out)
        except UserError as error:
            print(f"pack: {error}; doing that now")
            with suppress(FileNotFoundError):  # another part did it
                index.replace(config.out / SOURCE_NAME)
            return False
        return True
    if not config.overwrite:
        raise UserError(
            f"{config.out}: holds shards of other captions, images or settings; "
            "choose another --out, or replace them with --overwrite"
        )
    return False


def prepare(out: Path, source: dict[str, str], shared: bool = False) -> None:
    """Make ``out`` a folder in which every shard is of this source; others are removed.

    Args:
        out: The folder.
        source: What its shards are made from.
        shared: Other processes write shards of this source there; nothing is removed then.

    Raises:
        UserError: It cannot be made or written; it is shared and holds shards of another source.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({error.strerror})") from error
    # Before the source is looked at: who writes shards has said of what before.
    there = _our_files(out)
    keep = recorded_source(out / SOURCE_NAME) == source
    if shared:
        if keep:
            return
        if not all(map(is_temporary, there)):
            raise UserError(
                f"{out}: holds unfinished shards of something else; remove them to begin"
            )
    else:
        (out / INDEX_NAME).unlink(missing_ok=True)
        for path in there:
            if is_temporary(path) or not keep:
                path.unlink()
    with shard_file(out / SOURCE_NAME) as file:
        file.write(msgspec.json.encode(_Sourced(source)))


def _our_files(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if _OUR_FILES.fullmatch(path.name))


def leave_no_trace(out: Path) -> None:
    """Remove the folder unless it holds shards, or files of others."""
    if not _our_files(out):
        (out / SOURCE_NAME).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()
