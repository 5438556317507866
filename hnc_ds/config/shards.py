"""Settings of the shards: how they are packed, looked into and drawn from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from hnc_ds.config.checks import Settings, Weights, at_least, read_part, share
from hnc_ds.config.cores import cores
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PackConfig(Settings):
    """How images and captions become tar shards (hnc_ds/shards/pack.py)."""

    captions: Path
    """captions.jsonl(.gz) of 'hnc-ds generate' or 'swap-words', a released HNC file (.json), or a
    table or JSON Lines with negatives, such as NegCLIP's TSV; .gz too."""

    images: tuple[Path, ...]
    """Folders of the images, which are looked through with all folders in them: ID.jpg, or another
    suffix of JPEG, PNG, WebP, TIFF, BMP or GIF; A B and A:B are two."""

    out: Path
    """Folder for the shards and their index."""

    samples_per_shard: int = 1000
    """Images in a tar."""

    workers: int = field(default_factory=cores)
    """Processes. The bytes do not depend on it."""

    part: str | None = None
    """Which part of the shards, and of how many, such as 0/4, for a job of an array; all write to
    one --out on a shared disk, and the last to be done writes the index."""

    negative_columns: tuple[str, ...] = ()
    """Columns of a table, or keys of JSON, that hold negatives: a caption, or a list of them. Those
    of NegCLIP, CREPE, SugarCrepe and others are known without."""

    negative_type: tuple[str, ...] = ()
    """What these negatives are called: one name for all, or one for each column."""

    overwrite: bool = False
    """Replace shards that were packed from something else."""

    check: bool = False
    """Only say whether captions, images and disk space are complete; write nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise UserError("pack: name a folder of images with --images")
        at_least(1, samples_per_shard=self.samples_per_shard, workers=self.workers)
        if read_part(self.part)[1] > 1 and self.overwrite:
            raise UserError("pack: --part cannot --overwrite what others write; remove it before")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Settings):
    """Look into a folder of shards, or a file of captions."""

    shards: tyro.conf.Positional[str]
    """Folder that 'hnc-ds pack' wrote, its URL, or a file of captions."""

    samples: int | None = None
    """Images on the sheet, 12 when not given; of a file, groups per negative type, 10."""

    sheet: Path | None = None
    """PNG of samples with their captions; SHARDS/sheet.png when not given, of a URL
    sheet.png here."""

    seed: int = 0
    """Which samples."""

    verify: bool = False
    """Read every shard and compare its sha256 with the index."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None:
            at_least(1, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """What is drawn from the shards, and in which order (hnc_ds/shards)."""

    shards: str | None = None
    """Folder that 'hnc-ds pack' wrote, or its URL (s3, gs, https, hf, ...); rendered scenes are
    prepared under data/ when not given."""

    cache: Path | None = None
    """Where shards of a URL are kept; $HNC_DS_CACHE or ~/.cache/hnc_ds when not given."""

    cache_gb: float | None = None
    """Most gigabytes of them; $HNC_DS_CACHE_GB or 50 when not given."""

    hard_negatives: int = 4
    """Hard negatives drawn for each image (K)."""

    unrelated_negatives: int = 0
    """Captions of other images drawn for each image besides the batch's own (M)."""

    negative_types: Weights = field(default_factory=dict)
    """How often each negative type is drawn, relative to the others: swap 2 attribute 1. Types not
    named are not drawn; without any, all types are drawn alike."""

    most_of_one: float = 0.25
    """Largest share of a negative type's draws that turn on one predicate, or on one class of
    attributes such as colour, as far as there is enough else; 1 draws them as they come."""

    open_world_weight: float = 0.25
    """How often a negative that is not proven false ('hnc-ds generate --open-world', 'swap-words')
    is drawn, relative to a proven one of its type; 0 leaves them out."""

    crop: float = 0.9
    """Smallest share of the picture's area that a random training crop keeps; 1 never crops."""

    shuffle_shards: int = 16
    """Shards that are mixed with each other at a time; 0 mixes the whole data set."""

    similar: Path | None = None
    """File of 'hnc-ds mine' for these shards: puts a similar image after each image, so that
    batches hold pairs that are hard to tell apart."""

    nearest: int = 3
    """How many of the nearest images the similar one is drawn from; with --similar only."""

    workers: int | None = None
    """Processes per rank that read and decode; 0 does it in the training process. When not given:
    on a GPU the rank's cores less one, at most 16; on a CPU 1."""

    decode: Literal["cpu", "gpu"] = "cpu"
    """What decodes, crops and resizes images; gpu is for nodes with few cores a GPU. Its pixels
    differ from the CPU's by rounding, so a run cannot change it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            0,
            hard_negatives=self.hard_negatives,
            unrelated_negatives=self.unrelated_negatives,
            shuffle_shards=self.shuffle_shards,
            workers=self.workers or 0,
        )
        at_least(1, nearest=self.nearest)
        share(open_world_weight=self.open_world_weight)
        if not 0 < self.most_of_one <= 1:
            raise UserError(
                f"most_of_one is {self.most_of_one}; it must be more than 0 and at most 1"
            )
        if self.cache_gb == 0:
            raise UserError("cache_gb is 0.0; it must be more than 0, to hold a shard at least")
        if not 0 < self.crop <= 1:
            raise UserError(f"crop is {self.crop}; it must be more than 0 and at most 1")
        if any(weight < 0 for weight in self.negative_types.values()) or (
            self.negative_types and not sum(self.negative_types.values())
        ):
            raise UserError(
                "negative_types: weights must be 0 or more, and one of them more than 0"
            )
