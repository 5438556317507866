"""What lies in a folder of shards: ``hnc-ds inspect``.

Prints counts per negative type, draws a sheet of samples (sheet.py), and with ``--verify`` reads
every byte and compares it with the index. Changes nothing but the sheet.
"""

import hashlib
import random
import tarfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from hnc_ds.config import InspectConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import reading
from hnc_ds.records import TrainingSample
from hnc_ds.shards.abouts import OF_FOLDER, SeenAbouts
from hnc_ds.shards.format import (
    AGAIN,
    INDEX_NAME,
    DatasetIndex,
    SampleOffsets,
    ShardIndex,
    ShardSummary,
    decode_sample,
    read_shard_index,
    sample_key,
)
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.sheet import draw_sheet

SHEET_NAME = "sheet.png"
SAMPLES = 12
"""Images on the sheet when no other number is asked for."""
MOST_READ = 2000
"""Samples whose captions are read for the mean lengths; they are spread evenly."""


def inspect_shards(config: InspectConfig) -> None:
    """Print what a folder holds and draw a sheet of its samples.

    Raises:
        UserError: Not a finished folder, damaged shards, or a sheet that cannot be written.
    """
    reader = ShardReader(config.shards)
    if config.verify:
        shards, samples = verify(reader)
        print(
            f"verified: every byte of {counted(samples, 'sample')} in {counted(shards, 'shard')} "
            "is as recorded"
        )
    print("\n".join(_table(reader.location, reader.index, _words(reader))))
    sheet = config.sheet or (Path() if reader.is_far else reader.folder) / SHEET_NAME
    most = min(config.samples or SAMPLES, len(reader))
    drawn = random.Random(config.seed).sample(range(len(reader)), most)
    pictures = [(reader.image_bytes(i), reader.sample(i)) for i in sorted(drawn)]
    try:
        draw_sheet(pictures, sheet, config.seed)
    except OSError as error:
        raise UserError(
            f"{sheet}: cannot be written ({error.strerror or error}); name another --sheet"
        ) from error
    finally:
        reader.close()
    print(f"{counted(len(pictures), 'sample')} drawn on {sheet}")


def verify(reader: ShardReader) -> tuple[int, int]:
    """Read every shard and compare it with its index, byte by byte.

    Returns:
        (shards, samples) that were read.

    Raises:
        UserError: The first difference, with shard and member.
    """
    index = reader.index
    groups, negatives, abouts = 0, Counter[str](), SeenAbouts(OF_FOLDER)
    with tqdm(desc="verify", total=index.samples, unit=" images", disable=None) as bar:
        for number, shard in enumerate(index.shards):
            recorded = _verify_shard(reader.fetch(number), shard)
            groups += recorded.groups
            negatives.update(recorded.negatives)
            abouts.add_shard(recorded.negatives, recorded.about)
            bar.update(shard.samples)
    of_index = index.groups, index.negatives, index.about
    if of_index != (groups, dict(negatives), abouts.told()):
        raise UserError(
            f"{reader.location}/{INDEX_NAME}: its counts are not the sums of its shards; {AGAIN}"
        )
    return len(index.shards), index.samples


def _verify_shard(path: Path, shard: ShardSummary) -> ShardIndex:
    recorded = read_shard_index(path.parent, shard.file)
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    if sha256.hexdigest() != shard.sha256 or recorded.summary != shard:
        raise UserError(f"{path}: its bytes are not those recorded; delete it and pack again")
    again = "delete it and pack again"
    with reading(path, again, "not a whole tar"), tarfile.open(path) as tar:
        members = tar.getmembers()
        if len(members) != 2 * len(recorded.samples):
            raise UserError(
                f"{path}: {len(members)} members for {counted(len(recorded.samples), 'sample')}; "
                "delete it and pack again"
            )
        for at, image, captions in zip(recorded.samples, members[::2], members[1::2], strict=True):
            _verify_sample(path, at, image, captions)
            _verify_captions(path, tar, captions)
    return recorded


def _verify_sample(
    path: Path, at: SampleOffsets, image: tarfile.TarInfo, captions: tarfile.TarInfo
) -> None:
    found = [(member.name, member.offset_data, member.size) for member in (image, captions)]
    if found != [
        (f"{at.key}.jpg", at.image_offset, at.image_bytes),
        (f"{at.key}.json", at.json_offset, at.json_bytes),
    ]:
        raise UserError(
            f"{path}: {image.name} is not where the index says; delete it and pack again"
        )


def _verify_captions(path: Path, tar: tarfile.TarFile, captions: tarfile.TarInfo) -> None:
    file = tar.extractfile(captions)
    where = f"{path}:{captions.name}"
    sample = decode_sample(file.read() if file else b"", where)
    if f"{sample_key(sample.image_id)}.json" != captions.name:
        raise UserError(f"{where}: is of image {sample.image_id}; delete the shard and pack again")


_Words = dict[str, tuple[int, int]]
"""Negative type, or '' for true captions -> (words, captions)."""


def _words(reader: ShardReader) -> _Words:
    words: Counter[str] = Counter()
    captions: Counter[str] = Counter()
    step = -(-len(reader) // MOST_READ)
    for i in tqdm(range(0, len(reader), step), desc="read", unit=" images", disable=None):
        for kind, text in _texts(reader.sample(i)):
            words[kind] += len(text.split())
            captions[kind] += 1
    return {kind: (words[kind], captions[kind]) for kind in captions}


def _texts(sample: TrainingSample) -> list[tuple[str, str]]:
    true = [("", group.positive) for group in sample.groups]
    return true + [(each.type, each.caption) for group in sample.groups for each in group.negatives]


def _table(folder: str, index: DatasetIndex, words: _Words) -> list[str]:
    total = sum(index.negatives.values())
    wide = max(map(len, ("true captions", *index.negatives)))
    rows = [
        f"{folder}: {counted(index.samples, 'image')}, {counted(index.groups, 'group')}, "
        f"{counted(total, 'negative')} in "
        f"{counted(len(index.shards), 'shard')} "
        f"({sum(shard.bytes for shard in index.shards) / 1e6:.1f} MB)",
        f"  {'':{wide}} {'captions':>12} {'per image':>10} {'share':>8} {'mean words':>11}"
        + ("   most are about" if index.about else ""),
    ]
    counts = {"true captions": index.groups} | index.negatives
    for name, count in counts.items():
        share = f"{count / total:.1%}" if total and name in index.negatives else ""
        told, captions = words.get("" if name == "true captions" else name, (0, 0))
        mean = f"{told / captions:.1f}" if captions else "-"
        row = f"  {name:{wide}} {count:>12,} {count / index.samples:>10.2f} {share:>8} {mean:>11}"
        rows.append(f"{row}   {_largest(name, index)}".rstrip())
    skipped = ", ".join(f"{count} {reason}" for reason, count in index.skipped.items())
    rows.append(f"  images left out when packing: {skipped or 'none'}")
    return rows


def _largest(type_: str, index: DatasetIndex) -> str:
    """The predicate or class of attributes that most negatives of a type are about: 'on 24.0%'."""
    counts = index.about.counts.get(type_, {}) if index.about else {}
    told = {about: count for about, count in counts.items() if about}
    if not told:
        return ""
    most = max(sorted(told), key=told.__getitem__)
    return f"{most} {told[most] / sum(counts.values()):.1%}"
