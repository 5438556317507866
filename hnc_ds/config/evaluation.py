"""Settings of the commands that evaluate, compare and export models, and of LLaVA's answers."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hnc_ds.config.checks import Settings, at_least, read_part
from hnc_ds.errors import UserError
from hnc_ds.launch import readers


@dataclass(frozen=True, kw_only=True)
class MeasuredOn(Settings):
    """What models are measured on, and how images are read."""

    shards: str | None = None
    """Held-out shards of 'hnc-ds pack', a folder or a URL."""
    benchmarks: tuple[str, ...] = ()
    """Measures on the shards: hnc-shards (hard negatives), retrieval. Default: all."""
    data: str = ""
    """Released benchmarks and the paths of their files: sugarcrepe=DIR,valse=DIR. 'hnc-ds
    benchmarks' lists them."""
    images: str = ""
    """Folders of their images by source: coco2017=DIR,vg=DIR:DIR2."""
    allow_missing: bool = False
    """Leave out questions whose files or images are missing; scores come with the number."""
    batch: int = 256
    """Images per batch, in multiples of 64. Scores do not depend on it."""
    workers: int = field(default_factory=readers)
    """Processes that read and decode images."""
    seed: int = 0
    """Seed of the bootstrap and of corruptions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch)
        at_least(0, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(MeasuredOn):
    """Evaluate models on held-out shards and released benchmarks."""

    models: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ...")]]
    """Runs (newest checkpoint), checkpoint folders, open_clip models with a tag or a file of
    weights (ViT-B-32:openai), hf-hub:... or local-dir:..., or image-text matching models of
    transformers, hf:FOLDER or hf:ID. Several models are compared in one table."""
    out: Path
    """Results file, such as results.json; the score of every item is written to *.items.jsonl in
    the same folder. For several models, a folder of one results file each."""
    corruptions: tuple[str, ...] = ()
    """Also measure on corrupted images: all, fog (five severities), fog:3, ..."""
    cache: Path | None = None
    """Folder for embeddings, which are reused by later evaluations of the same model. It can be
    deleted at any time."""
    all: bool = False
    """Print every score. Without it at most 25 lines of each benchmark are printed; the results
    file has all scores anyway."""
    name: str | None = None
    """Name of the model in the results. Default: the run's folder name."""
    threshold_from: Path | None = None
    """Results of the same models on shards of validation data, as --out was given there: captions
    are also judged one by one (threshold_accuracy), at the score that separates true from false
    best there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.models:
            raise UserError("evaluate: no model; name a run, or a model such as ViT-B-32:openai")
        if self.name is not None and len(self.models) > 1:
            raise UserError("evaluate: --name is for one model; leave it out")


@dataclass(frozen=True, kw_only=True)
class BenchmarksConfig(Settings):
    """List the released benchmarks, their files, and which of them are installed."""

    data: str = ""
    """Released benchmarks and the paths of their files, whose questions and images are counted:
    sugarcrepe=DIR,valse=DIR."""
    images: str = ""
    """Folders of their images by source: coco2017=DIR,vg=DIR:DIR2."""


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(MeasuredOn):
    """Interpolate the weights of two models and evaluate each point (WiSE-FT)."""

    start: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="START")]]
    """Model at coefficient 0: a run (newest checkpoint), a checkpoint folder, an open_clip model
    with a tag or a file of weights (ViT-B-32:openai), hf-hub:... or local-dir:...; or the word
    start, for the model that the run FINAL started from."""
    final: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="FINAL")]]
    """Model at coefficient 1, usually a run; named in the same ways."""
    sweep: str = "0:1:0.1"
    """Coefficients to measure: FIRST:LAST:STEP with both ends, or a list such as 0,0.25,0.5."""
    out: Path | None = None
    """Folder for the results, such as coefficient-0.3.json; required for measuring. Existing points
    are not measured again."""
    metric: str | None = None
    """BENCHMARK/METRIC/GROUP of the score that chooses the best coefficient, such as
    retrieval/text_to_image_R@1/all. Default: the first headline, usually hard negative accuracy."""
    save: str | None = None
    """Coefficient of a model to write as a checkpoint folder; with --save-to."""
    save_to: Path | None = None
    """Folder for the interpolated model, for 'hnc-ds evaluate' and open_clip."""
    overwrite: bool = False
    """Replace an interpolated model in --save-to."""
    name: str | None = None
    """Name of the models in the results, before the @ and the coefficient. Default: FINAL's
    name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        measures = self.shards is not None or bool(self.data)
        if measures != (self.out is not None):
            raise UserError("interpolate: to measure, give --shards or --data, and --out")
        if (self.save is None) != (self.save_to is None):
            raise UserError("interpolate: to write a model, give --save and --save-to")
        if not measures and self.save is None:
            raise UserError(
                "interpolate: nothing to do; give --shards and --out, or --save and --save-to"
            )


@dataclass(frozen=True, kw_only=True)
class MineConfig(Settings):
    """Find similar images for training batches ('train --similar')."""

    run: tyro.conf.Positional[Path | None] = None
    """Run folder (newest checkpoint) or checkpoint folder; or give --model."""
    shards: str
    """Shards of 'hnc-ds pack', a folder or a URL."""
    out: Path
    """Output file NAME.safetensors, for --similar of a training."""
    model: str | None = None
    """open_clip model name, or hf-hub:... or local-dir:..., instead of a run."""
    pretrained: str | None = None
    """open_clip tag or local file of weights for --model."""
    captions_out: Path | None = None
    """Also write the captions of the shards, each with true captions of similar images as further
    hard negatives (type similar_caption), to this captions.jsonl or captions.jsonl.gz, for
    'hnc-ds pack'. Captions are exchanged, so each is as often a negative as it has negatives."""
    per_caption: int = 1
    """Maximum number of these negatives per caption."""
    k: int = 8
    """Similar images per image. A training uses the first --nearest of them; NegCLIP draws one of
    the first 3."""
    batch: int = 256
    """Images per batch, in multiples of 64. Similarities do not depend on it."""
    workers: int = field(default_factory=readers)
    """Processes that read and decode images."""
    overwrite: bool = False
    """Replace an existing --captions_out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, k=self.k, per_caption=self.per_caption, batch=self.batch)
        at_least(0, workers=self.workers)
        if (self.run is None) == (self.model is None):
            raise UserError("mine: give either a run or --model")
        if self.pretrained and self.run:
            raise UserError("mine: --pretrained is for --model; a run has its own weights")


TABLE_FORMATS = (".csv", ".tex", ".md")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Settings):
    """Write an HTML page that compares runs, or a table of their scores."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")]]
    """Run folders, results files, folders of results, or sweeps of 'hnc-ds interpolate'. The others
    are compared with the first. A file given before its folder comes first and is read once. Runs
    that differ only in the seed, by their config.json, are one column of means."""
    out: Path | None = None
    """HTML file to write; report.html when not given, unless there is a --table."""
    table: Path | None = None
    """Write the scores to this file: .csv for every score of every seed in long form, .tex for a
    LaTeX table (booktabs), .md for a Markdown table. Without --out no page is written."""
    seeds_by_name: bool = False
    """Results that have no config.json beside them, as of 'evaluate --out FOLDER', are seeds of one
    model if their names differ only in a number at the end: hnc-0, hnc-1; hnc-seed0, hnc-seed1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table is not None and self.table.suffix not in TABLE_FORMATS:
            raise UserError(f"--table is {self.table}; name a file that ends in .csv, .tex or .md")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Settings):
    """Compare two results files item by item, with significance tests."""

    first: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A.json")]]
    """Results of the baseline."""
    second: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B.json")]]
    """Results of the model to compare."""
    out: Path | None = None
    """FILE.json for all rows, including those of small groups."""
    examples: int = 8
    """Number of items to print that changed most."""
    seed: int = 0
    """Seed of intervals and permutation tests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, examples=self.examples)
        if self.out is not None and (self.out.suffix != ".json" or self.out.is_dir()):
            raise UserError(f"--out is {self.out}; name a file that ends in .json")
        given = {self.first.resolve(), self.second.resolve()}
        if self.out is not None and self.out.resolve() in given:
            raise UserError(f"--out is {self.out}, a file to compare; name another one")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Export a model to open_clip's or Hugging Face's layout, or its tower into a LLaVA."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run (its newest checkpoint), a checkpoint folder, an open_clip model with a tag or weights
    file (ViT-L-14-336-quickgelu:openai), hf-hub:... or local-dir:...."""
    out: Path
    """Output folder."""
    to: Literal["open_clip", "hf"] | None = None
    """Layout to write: open_clip's local-dir, or Hugging Face's CLIPModel."""
    into: Path | None = None
    """LLaVA-1.5 or LLaVA-NeXT folder, in Hugging Face's layout or LLaVA's own; --out becomes a copy
    of it with the model's tower. In LLaVA's own layout the tower is a folder in --out, which
    mm_vision_tower in its config.json names."""
    average: bool = False
    """Export the averaged weights of a run that was trained with --ema."""
    probe: Path | None = None
    """Folder of images on which the exported model is compared with the original. Default: a few
    generated images."""
    overwrite: bool = False
    """Replace --out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.to is None) == (self.into is None):
            raise UserError("export: give either --to open_clip, --to hf, or --into LLAVA_DIR")
        if self.into is not None and self.into.resolve() == self.out.resolve():
            raise UserError("export: --out is --into; choose another folder")


Dataset = Literal[
    "vqav2", "textvqa", "gqa", "pope", "vizwiz", "mmvp-vqa", "naturalbench", "vsr-vqa"
]
"""Names of the free-form benchmarks."""


@dataclass(frozen=True, kw_only=True)
class AnswerConfig(Settings):
    """Answer the questions of a benchmark with a LLaVA: VQA v2.0, TextVQA, GQA, POPE, VizWiz-VQA,
    MMVP, NaturalBench or VSR."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="LLAVA_DIR")]]
    """LLaVA-1.5 folder in Hugging Face's layout, such as the output of 'hnc-ds export --into'."""
    dataset: Dataset
    """Data set of the questions."""
    questions: Path
    """Questions in the data set's format or as LLaVA's JSON Lines. For POPE the folder of
    coco_pope_random.json, ..., or one of them; for NaturalBench the folder of its parquet
    files."""
    images: Path
    """Folder of the images; for NaturalBench that of its parquet files."""
    out: Path | None = None
    """Output folder; the same command resumes a stopped one. Required without --check."""
    ocr: Path | None = None
    """TextVQA_Rosetta_OCR_v0.2_val.json: adds its OCR tokens to TextVQA's questions. Default: no
    OCR tokens."""
    batch: int = 128
    """Maximum number of questions per batch, halved when memory runs out. 128 questions take about
    30 GB with LLaVA-1.5-7B in half precision."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Dtype of the weights; auto is float16 on a GPU, as in LLaVA, and float32 on a CPU. In half
    precision an answer may depend on the other questions of its batch."""
    strict: bool = False
    """Answer one question at a time in float32; overrides --batch and --dtype."""
    max_new_tokens: int = 128
    """Maximum number of tokens of an answer."""
    part: str | None = None
    """Part of the questions to answer in a job array, such as 0/4 for the first of four. Processes
    of a launcher (deepspeed, torchrun, srun) split the part among themselves."""
    allow_missing: bool = False
    """Write empty answers to questions whose images are missing or unreadable, and print their
    number."""
    normalise: bool = False
    """Normalize the answers for VQA v2.0's server, as LLaVA's conversion script does."""
    complete_with: Path | None = None
    """v2_OpenEnded_mscoco_test2015_questions.json, or LLaVA's file of test2015. Adds empty answers
    to its other questions in answers.vqa.json, as VQA v2.0's server requires all of them, for
    test-dev too."""
    check: bool = False
    """Only check that all inputs exist."""
    workers: int = field(default_factory=lambda: min(4, readers()))
    """Processes that read images. A core reads about 90 images/s; a GPU needs about 40."""
    cuda_graphs: bool = False
    """Replay decoding steps as CUDA graphs; faster for small batches on a fast GPU. Switched off if
    the first replay gives other tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch, max_new_tokens=self.max_new_tokens)
        at_least(0, workers=self.workers)
        if self.out is None and not self.check:
            raise UserError("answer: no --out; name a folder for the answers")
        if self.ocr is not None and self.dataset != "textvqa":
            raise UserError("answer: --ocr is for textvqa")
        if self.complete_with is not None and self.dataset != "vqav2":
            raise UserError("answer: --complete-with is for vqav2")
        if self.normalise and self.dataset != "vqav2":
            raise UserError("answer: --normalise is for vqav2, whose server takes the answers")
        _ = self.place

    @property
    def place(self) -> tuple[int, int]:
        """Number of this process, and number of all processes. Raises UserError for a wrong
        --part."""
        part, parts = read_part(self.part)
        # Set by a launcher, or from SLURM's variables (launch.py).
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return part * ranks + rank, parts * ranks


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Settings):
    """Score answers to a benchmark of 'hnc-ds answer' with the official metrics."""

    dataset: Dataset
    """Data set of the questions."""
    annotations: Path
    """The annotators' answers: v2_mscoco_val2014_annotations.json, TextVQA_0.5.1_val.json or
    VizWiz's val.json; for the others the file or folder of the questions, which has the answers."""
    answers: Path
    """Model answers: JSON Lines of 'hnc-ds answer' or LLaVA, or the VQA server's JSON list."""
    out: Path
    """Results file (.json); every answer with its scores is written to *.items.jsonl next to it."""
    questions: Path | None = None
    """VQA v2.0's questions, to show their texts in reports; or llava_pope_test.jsonl, for answers
    to LLaVA's file of POPE's questions."""
    choices: Path | None = None
    """GQA's SPLIT_choices.json, for validity and plausibility."""
    images: Path | None = None
    """Folder of the images, to show them in reports."""
    per_item: Path | None = None
    """Also write a JSON line {question_id, score} per question, by the headline scorer."""
    allow_missing: bool = False
    """Score unanswered questions as empty answers, and print their number."""
    name: str | None = None
    """Name of the model in the results. Default: the name in the answers."""
    seed: int = 0
    """Seed for the bootstrap intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix != ".json" or self.out.is_dir():
            raise UserError(f"--out is {self.out}; name a file that ends in .json")
        if self.choices is not None and self.dataset != "gqa":
            raise UserError("score: --choices is for gqa")
        if self.questions is not None and self.dataset not in ("vqav2", "pope"):
            raise UserError("score: --questions is for vqav2 and pope")
