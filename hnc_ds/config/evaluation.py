"""Settings of what measures, mixes and compares models."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from hnc_ds.config.checks import Settings, at_least
from hnc_ds.config.cores import readers
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Measure models on held-out shards and on benchmarks (hnc_ds/evaluation)."""

    models: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ...")]]
    """Runs (their newest checkpoints), checkpoint folders, open_clip models with their tag or file
    of weights (ViT-B-32:openai), hf-hub:... or local-dir:...; several are shown side by side."""

    out: Path
    """results.json; the score of every pair goes beside it as *.items.jsonl. Of several models a
    folder, with such a file for each."""

    shards: str | None = None
    """Held-out shards of 'hnc-ds pack', a folder or a URL."""

    benchmarks: tuple[str, ...] = ()
    """What to measure on the shards: hnc-shards (hard negatives), retrieval; all when none is
    named."""

    data: str = ""
    """Released benchmarks and where their files lie: sugarcrepe=DIR,valse=DIR; 'hnc-ds benchmarks'
    lists them."""

    images: str = ""
    """Where their pictures lie: coco2017=DIR,vg=DIR:DIR2."""

    corruptions: tuple[str, ...] = ()
    """Also measure on worse pictures: all, fog (five severities), fog:3, ...."""

    allow_missing: bool = False
    """Leave out questions without their files or pictures; told beside every score."""

    cache: Path | None = None
    """Folder for embeddings, so that what a model encoded once is not encoded again; may be removed
    at any time."""

    name: str | None = None
    """What to call the model in the results; the run's folder name when not given."""

    batch: int = 256
    """Images read at once, in multiples of 64. Scores do not depend on it."""

    workers: int = field(default_factory=readers)
    """Processes that read and decode."""

    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch)
        at_least(0, workers=self.workers)
        if not self.models:
            raise UserError("evaluate: no model; name a run, or such as ViT-B-32:openai")
        if self.name is not None and len(self.models) > 1:
            raise UserError("evaluate: --name is for one model; leave it out")


@dataclass(frozen=True, kw_only=True)
class BenchmarksConfig(Settings):
    """List what can be measured (hnc_ds/evaluation/listing.py)."""

    data: str = ""
    """Released benchmarks and where their files lie, to count what is there:
    sugarcrepe=DIR,valse=DIR."""

    images: str = ""
    """Where their pictures lie: coco2017=DIR,vg=DIR:DIR2."""


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(Settings):
    """Mix the weights of two models and measure the mixtures (hnc_ds/evaluation/interpolate.py)."""

    start: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="START")]]
    """The model of weight 0: a run (its newest checkpoint), a checkpoint folder, an open_clip model
    with its tag or file of weights (ViT-B-32:openai), hf-hub:... or local-dir:...; or the word
    start, for what the run FINAL began with."""

    final: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FINAL")]]
    """The model of weight 1, named in the same ways: usually a run."""

    sweep: str = "0:1:0.1"
    """Mixing weights to measure: FIRST:LAST:STEP with both ends, or a list such as 0,0.25,0.5."""

    benchmarks: tuple[str, ...] = ()
    """What to measure on the shards: hnc-shards (hard negatives), retrieval; all when none is
    named."""

    shards: str | None = None
    """Held-out shards of 'hnc-ds pack', to measure on."""

    data: str = ""
    """Released benchmarks to measure on, and where their files lie: sugarcrepe=DIR,valse=DIR."""

    images: str = ""
    """Where their pictures lie: coco2017=DIR,vg=DIR:DIR2."""

    allow_missing: bool = False
    """Leave out questions without their files or pictures."""

    out: Path | None = None
    """Folder for the results, alpha-0.3.json for the weight 0.3; needed to measure. Points that are
    there already are not measured again."""

    metric: str | None = None
    """BENCHMARK/METRIC/GROUP of the score by which the best weight is named, such as
    retrieval/text_to_image_R@1/all; the accuracy over all pairs when not given."""

    save: str | None = None
    """A mixing weight to keep as a checkpoint folder; with --save-to."""

    save_to: Path | None = None
    """Folder for the mixed model, which 'hnc-ds evaluate' and open_clip open."""

    overwrite: bool = False
    """Replace mixed weights that lie in --save-to."""

    name: str | None = None
    """What to call the models in the results, before the @ and the weight; FINAL's name when not
    given."""

    batch: int = 256
    """Images read at once, in multiples of 64. Scores do not depend on it."""

    workers: int = field(default_factory=readers)
    """Processes that read and decode."""

    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch)
        at_least(0, workers=self.workers)
        measures = self.shards is not None or bool(self.data)
        if measures != (self.out is not None):
            raise UserError("interpolate: to measure, give --shards or --data, and --out")
        if (self.save is None) != (self.save_to is None):
            raise UserError("interpolate: to keep a mixed model, give --save and --save-to")
        if not measures and self.save is None:
            raise UserError(
                "interpolate: nothing to do; give --shards and --out, or --save and --save-to"
            )


@dataclass(frozen=True, kw_only=True)
class MineConfig(Settings):
    """Find the images most similar to each image (hnc_ds/evaluation/mine.py)."""

    run: tyro.conf.Positional[Path | None] = None
    """A run folder (its newest checkpoint) or one checkpoint folder; or give --model."""

    shards: str
    """Shards of 'hnc-ds pack', a folder or a URL."""

    out: Path
    """NAME.safetensors, for the flag --similar of a training."""

    model: str | None = None
    """An open_clip model name or hf-hub:/local-dir: reference, in place of a run."""

    pretrained: str | None = None
    """An open_clip tag or a local file of weights for --model."""

    k: int = 8
    """Similar images kept for each image. NegCLIP draws one of the 3 nearest; with more in the file
    a training can choose (--nearest)."""

    batch: int = 256
    """Images read at once, in multiples of 64. Similarities do not depend on it."""

    workers: int = field(default_factory=readers)
    """Processes that read and decode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, k=self.k, batch=self.batch)
        at_least(0, workers=self.workers)
        if (self.run is None) == (self.model is None):
            raise UserError("mine: give either a run or --model, so that images can be compared")
        if self.pretrained and self.run:
            raise UserError("mine: --pretrained belongs to --model; a run has weights of its own")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings):
    """Compare runs, or models that were evaluated, in one self-contained HTML page."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, results files, folders of results, sweeps of 'hnc-ds interpolate'; the first is
    what the others are compared with. A file named before its folder comes first and is read
    once."""

    out: Path = Path("report.html")
    """The page."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    """Compare two results files item by item (hnc_ds/report/two_models.py)."""

    first: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A.json")]]
    """Results of the baseline."""

    second: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B.json")]]
    """Results of the model that is compared with it."""

    out: Path | None = None
    """FILE.json for every row, those of small groups too."""

    examples: int = 8
    """Items that changed most, to print."""

    seed: int = 0
    """Of intervals and permutations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, examples=self.examples)
