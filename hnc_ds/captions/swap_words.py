"""A list of captions -> captions.jsonl with word swaps: parallel, resumable, the same bytes.

    hnc-ds swap-words --captions captions_train2017.json --out coco.captions.jsonl.gz

Every caption that has negatives becomes a group of type 'caption'; negatives that the list has in
further columns come first. Nothing about the image is known
but its captions, so no negative is proven false: all are tagged ``open_world``. Beside the file
lies OUT.stats.json with the counts. What a caption gets depends on the seed, the image's id and the
caption alone.
"""

import random
from collections import Counter
from functools import partial
from importlib.metadata import version

import msgspec

from hnc_ds.captions.captions_file import (
    Chunk,
    check_output,
    chunk_of,
    sha256_of,
    write_captions,
)
from hnc_ds.captions.coverage import Coverage, coverage_of
from hnc_ds.captions.formats.caption_lists import (
    GROUP_TYPE,
    ListedImage,
    plain,
    read_caption_list,
)
from hnc_ds.captions.formats.negative_columns import NegativeColumns
from hnc_ds.captions.words.tagging import load_tagger, tag_sentences
from hnc_ds.captions.words.word_swaps import WORD_SWAPS, swap_negatives
from hnc_ds.config import SwapWordsConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.output_lock import only_writer
from hnc_ds.records import CaptionGroup, ImageCaptions

VERSION = 2
"""Raise it when the same captions would now get other negatives: older parts are dropped."""


class _Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the negatives depend on."""

    version: int
    tagger: str
    source: str
    source_sha256: str
    split: tuple[str, ...]
    types: tuple[str, ...]
    per_caption: int
    seed: int
    compressed: bool
    negative_columns: tuple[str, ...] = ()
    negative_type: tuple[str, ...] = ()


def swap_words(config: SwapWordsConfig) -> None:
    """Write the captions of a list with their word swaps, and the statistics.

    A run that was killed continues where it was when started again with the same settings.

    Raises:
        UserError: The tagger is missing, unknown type, unreadable or broken list, existing output,
            disk full, another process writes it.
    """
    types = _check(config)
    settings = _Settings(
        version=VERSION,
        tagger=f"HanTa {version('HanTa')}",
        source=config.captions.name,
        source_sha256=sha256_of(config.captions),
        split=tuple(sorted(config.split)),
        types=types,
        per_caption=config.per_caption,
        seed=config.seed,
        compressed=config.out.suffix == ".gz",
        negative_columns=config.negative_columns,
        negative_type=config.negative_type,
    )
    irregular: Counter[str] = Counter()
    negatives = NegativeColumns(config.negative_columns, config.negative_type)
    images = read_caption_list(config.captions, config.split, irregular, negatives)
    make = partial(_make_chunk, settings)
    with only_writer(config.out):
        check_output(config.out, config.overwrite)
        write_captions(config.out, settings, images, make, config.workers, irregular)


def image_captions(image: ListedImage, settings: _Settings) -> tuple[ImageCaptions, int]:
    """The groups of an image, and how many of its captions got no negative."""
    groups = []
    known = {plain(caption) for caption in image.captions}
    for caption, own in zip(image.captions, image.negatives, strict=True):
        rng = random.Random(f"{settings.seed}/{image.image_id}/{caption}")
        found = swap_negatives(
            caption, tag_sentences(caption), settings.types, settings.per_caption, rng
        )
        # What another caption of the image says is true of it.
        made = [n for n in found if plain(n.caption) not in known]
        listed = {plain(n.caption) for n in own}
        # The list's own first: of two alike, theirs has the type that the user knows.
        if negatives := (*own, *(n for n in made if plain(n.caption) not in listed)):
            groups.append(CaptionGroup(caption, GROUP_TYPE, negatives))
    without = len(image.captions) - len(groups)
    return ImageCaptions(image.image_id, tuple(groups)), without


def _check(config: SwapWordsConfig) -> tuple[str, ...]:
    """Everything that can be refused before work starts; gives the types in the table's order."""
    for name in config.types:
        if name not in WORD_SWAPS:
            raise UserError(
                f"types: unknown word swap '{name}'{did_you_mean(name, WORD_SWAPS)}; "
                f"there are {', '.join(WORD_SWAPS)}"
            )
    if not config.captions.is_file():
        raise UserError(f"{config.captions}: no such file; give a list of captions")
    check_output(config.out, config.overwrite)
    load_tagger()
    return tuple(name for name in WORD_SWAPS if not config.types or name in config.types)


def _make_chunk(settings: _Settings, images: list[ListedImage]) -> Chunk:
    """What a worker makes of some images."""
    irregular: Counter[str] = Counter()

    def made(image: ListedImage) -> tuple[ImageCaptions, Coverage]:
        captions, left_out = image_captions(image, settings)
        irregular["captions without a swap"] += left_out
        return captions, coverage_of(None, captions)

    return chunk_of(map(made, images), irregular, settings.compressed)
