"""Settings of packing, inspecting and sampling shards."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hnc_ds.config.checks import Settings, Weights, at_least, read_part, share
from hnc_ds.errors import UserError, counted
from hnc_ds.launch import cores


@dataclass(frozen=True, kw_only=True)
class PackConfig(Settings):
    """Pack images and captions into WebDataset tar shards."""

    captions: Path
    """Captions to pack: captions.jsonl(.gz) of 'hnc-ds generate' or 'swap-words', a released HNC
    file (.json), or anything that 'swap-words' reads: COCO's or Karpathy's JSON, NegCLIP's TSV, a
    CSV, JSON Lines (also .gz), parquet, a folder of WebDataset tars or of a Hugging Face data set,
    or a quoted pattern such as 'cc3m/{00000..00331}.tar'."""
    images: tuple[Path, ...] = ()
    """Folders of the images, searched recursively for ID.jpg, or another suffix of JPEG, PNG,
    WebP, TIFF, BMP or GIF; or tars or parquet files with images. Separate several with blanks or
    colons. Not needed where --captions holds the images."""
    out: Path
    """Folder for the shards and their index."""
    samples_per_shard: int = 1000
    """Images per shard."""
    workers: int = field(default_factory=cores)
    """Worker processes; the output does not depend on it."""
    part: str | None = None
    """Part of the shards to write in a job array, such as 0/4 for the first of four. All parts
    write to one --out on a shared disk; the last to finish writes the index."""
    split: tuple[str, ...] = ()
    """Splits to pack of Karpathy's file or of a Hugging Face data set, such as train restval.
    Default: all."""
    negative_columns: tuple[str, ...] = ()
    """Columns of a table, or keys of JSON, that hold a negative caption or a list of them. Not
    needed for NegCLIP, CREPE, SugarCrepe and other known formats."""
    negative_type: tuple[str, ...] = ()
    """Type of these negatives: one name for all columns, or one per column."""
    overwrite: bool = False
    """Replace shards that were packed from other inputs."""
    check: bool = False
    """Only check captions, images and disk space; write nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, samples_per_shard=self.samples_per_shard, workers=self.workers)
        if read_part(self.part)[1] > 1 and self.overwrite:
            raise UserError("pack: --part does not go with --overwrite; remove the folder first")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Settings):
    """Show counts per negative type, and samples, of shards or of a captions file."""

    shards: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SHARDS")]]
    """Output folder of 'hnc-ds pack', its URL, or a captions file."""
    samples: int | None = None
    """Images on the sheet (default 12); for a captions file, groups per negative type (default
    10)."""
    sheet: Path | None = None
    """PNG with sample images and captions. Default: SHARDS/sheet.png, or ./sheet.png for a URL."""
    seed: int = 0
    """Seed for the choice of samples."""
    verify: bool = False
    """Read every shard and compare it with its recorded sha256."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None:
            at_least(1, samples=self.samples)


def _read_folders(given: list[str]) -> str | tuple[str, ...]:
    return given[0] if len(given) == 1 else tuple(given)


def _list_folders(shards: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (shards,) if isinstance(shards, str) else shards or ()


Folders = Annotated[
    str | tuple[str, ...] | None,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="SHARDS ...",
        instance_from_str=_read_folders,
        is_instance=lambda value: value is None or isinstance(value, str | tuple),
        str_from_instance=lambda shards: list(_list_folders(shards)),
    ),
]
"""Shard folders; a single one stays a string, as config.json has had it from the start."""

LONGEST_PERIOD = 100_000
"""Maximum sum of the proportions of --mix, which are listed position by position."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Settings of sampling from shards (hnc_ds/shards)."""

    GROUP: ClassVar[str] = "data"

    shards: Folders = None
    """Output folder of 'hnc-ds pack', or its URL (s3, gs, https, hf, ...). Several are one data
    set, unless --mix weighs them. By default, rendered scenes are prepared under data/."""
    mix: tuple[float, ...] = ()
    """Relative frequency of the images of each folder of --shards, such as 3 1. At every step the
    images so far have these proportions, to one image; a folder that is used up starts again in a
    new order. By default each image of all folders is drawn once an epoch."""
    cache: Path | None = None
    """Cache folder for shards of a URL. Default: $HNC_DS_CACHE or ~/.cache/hnc_ds."""
    cache_gb: float | None = None
    """Maximum size of the cache in gigabytes. Default: $HNC_DS_CACHE_GB or 50."""
    hard_negatives: int = 4
    """Hard negatives per image (K)."""
    positives: int = 1
    """True captions per image (P). The loss is the mean over them; an image with fewer repeats
    them. Hard negatives are of the first one."""
    unrelated_negatives: int = 0
    """Captions of other images per image, in addition to those of the batch (M)."""
    mined_negatives: int = 0
    """Of image-text matching models with contrastive heads: captions of other images of the batch
    per image, drawn more often the more similar these heads find them, as in ALBEF."""
    negative_types: Weights = field(default_factory=dict)
    """Relative frequency of each negative type, such as: swap 2 attribute 1. Types that are not
    named are not drawn; by default all types are drawn equally often."""
    share_with_negatives: float | None = None
    """Probability that a visit draws a caption with hard negatives, for images that have both
    captions with and captions without. Default: the share of the image's captions that have
    some."""
    most_of_one: float = 0.25
    """Maximum share of one predicate, or of one class of attributes such as colour, among the draws
    of a negative type, where the data allow it. 1 draws in proportion to the data."""
    open_world_weight: float = 0.25
    """Frequency of negatives that are not proven false (from 'hnc-ds generate --open-world' or
    'swap-words'), relative to proven ones of the same type. 0 leaves them out."""
    crop: float = 0.9
    """Minimum share of the image's area in a random training crop; 1 never crops."""
    shuffle_shards: int = 16
    """Number of shards whose samples are shuffled together; 0 shuffles the whole data set."""
    similar: Path | None = None
    """File of 'hnc-ds mine' for these shards. Puts a similar image after each image, so that
    batches hold pairs that are hard to distinguish."""
    nearest: int = 3
    """Number of nearest images that the similar one is drawn from (with --similar)."""
    workers: int | None = None
    """Processes per rank that read and decode; 0 uses the training process. Default: on a GPU the
    rank's cores less one, at most 16; on a CPU 1."""
    decode: Literal["cpu", "gpu"] = "cpu"
    """Device that decodes, crops and resizes images; gpu is for nodes with few cores per GPU. Its
    pixels differ by rounding, so a run cannot change the setting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            0,
            hard_negatives=self.hard_negatives,
            unrelated_negatives=self.unrelated_negatives,
            mined_negatives=self.mined_negatives,
            shuffle_shards=self.shuffle_shards,
            workers=self.workers or 0,
        )
        at_least(1, nearest=self.nearest, positives=self.positives)
        share(open_world_weight=self.open_world_weight)
        if self.share_with_negatives is not None:
            share(share_with_negatives=self.share_with_negatives)
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
        self._check_folders()

    def _check_folders(self) -> None:
        folders = len(self.folders)
        if self.shards == ():
            raise UserError("shards names no folder; give a folder or a URL, or leave --shards out")
        if self.similar is not None and folders > 1:
            raise UserError(
                "similar is a file for the images of one folder; pack all images into one, or give "
                "one folder to --shards"
            )
        if not self.mix:
            return
        if len(self.mix) != folders:
            raise UserError(
                f"mix has {counted(len(self.mix), 'weight')} for {counted(folders, 'folder')} of "
                "--shards; give one for each"
            )
        if 0 in self.mix:
            raise UserError("mix: a weight is 0; leave that folder out of --shards")
        if sum(self.proportions) > LONGEST_PERIOD:
            raise UserError(
                f"mix: these proportions are {' to '.join(f'{n:,}' for n in self.proportions)} in "
                f"whole numbers, of a sum over {LONGEST_PERIOD:,}; round them, such as to 3 1"
            )

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders and URLs of --shards; none by default."""
        return _list_folders(self.shards)

    @property
    def proportions(self) -> tuple[int, ...]:
        """The weights of --mix as the smallest whole numbers of the same proportions. Each is taken
        as the decimal fraction that it is written as."""
        exact = [Fraction(str(weight)) for weight in self.mix]
        common = math.lcm(*(weight.denominator for weight in exact))
        whole = [int(weight * common) for weight in exact]
        return tuple(weight // math.gcd(*whole) for weight in whole)
