"""Settings of the stages that make captions, of rendered scenes and of the demos."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from hnc_ds.config.checks import REQUIRED, Settings, at_least, read_part, share
from hnc_ds.errors import UserError
from hnc_ds.launch import cores


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(Settings):
    """Render synthetic scenes with exact scene graphs."""

    out: Path
    """Output folder for train_sceneGraphs.json, val_sceneGraphs.json and images/."""
    train: int = 4000
    """Number of training scenes."""
    val: int = 500
    """Number of held-out scenes."""
    seed: int = 0
    """Seed; the same seed gives the same bytes."""
    size: int = 224
    """Width and height of the images in pixels."""
    objects: tuple[int, int] = (2, 5)
    """Minimum and maximum number of objects in an image."""
    min_objects_share: float = 0.0
    """Share of images with the minimum number of objects; in the others the number is drawn
    uniformly."""
    shapes: int = 8
    """Number of different shapes."""
    colours: int = 8
    """Number of different colours."""
    patterned: float = 0.25
    """Share of objects that are striped or dotted."""
    duplicate_shapes: float = 0.3
    """Share of images in which a shape may occur more than once."""
    overlaps: float = 0.3
    """Share of images with an object inside, on or in front of another."""
    workers: int = field(default_factory=cores)
    """Worker processes; the output does not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, train=self.train, val=self.val, seed=self.seed)
        at_least(1, workers=self.workers)
        at_least(32, size=self.size)
        at_least(2, shapes=self.shapes, colours=self.colours)
        share(min_objects_share=self.min_objects_share, patterned=self.patterned)
        share(duplicate_shapes=self.duplicate_shapes, overlaps=self.overlaps)
        least, most = self.objects
        if not 1 <= least <= most <= 8:
            raise UserError(
                f"objects is {least} {most}; give a smaller and a larger number from 1 to 8"
            )


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Settings):
    """Run the whole pipeline on rendered scenes: plain CLIP against hard negatives."""

    out: Path = Path("runs/demo")
    """Folder for the runs and the report."""
    scenes: Path = Path("data/demo")
    """Folder for the scenes, captions and shards."""
    train: int = 8000
    """Number of training scenes."""
    val: int = 500
    """Number of held-out scenes."""
    steps: int = 1300
    """Steps of each of the two trainings."""
    alpha: float = 3.0
    """Weight of the hard negatives in the second training; the first has 0."""
    ranks: int = 2
    """Training processes."""
    seed: int = 0
    """Seed for scenes, captions, initial weights and sample order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, train=self.train, val=self.val, steps=self.steps, ranks=self.ranks)


@dataclass(frozen=True, kw_only=True)
class DemoLlavaConfig(DemoConfig):
    """Run the LLaVA experiment on rendered scenes with tiny models."""

    out: Path = Path("runs/demo-llava")
    """Folder for the runs, the models, their answers and the report."""
    scenes: Path = Path("data/demo-llava")
    """Folder for the scenes, captions, shards and questions."""
    questions: int = 4
    """Maximum number of VQA v2.0 questions per image."""
    steps: int = 500
    """Training steps of plain CLIP, the baseline."""
    more_steps: int = 1000
    """Further training steps with hard negatives."""
    llava_steps: int = 800
    """Training steps of the tiny LLaVA's connector and language model."""
    width: int = 128
    """Width of the language model."""
    layers: int = 3
    """Layers of the language model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, questions=self.questions, width=self.width, layers=self.layers)
        at_least(1, more_steps=self.more_steps, llava_steps=self.llava_steps)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Settings):
    """Generate captions and hard negatives from scene graphs."""

    scene_graphs: Annotated[Path, REQUIRED] = Path()
    """GQA's train_sceneGraphs.json or val_sceneGraphs.json, or a file in the same format (also
    .gz)."""
    out: Annotated[Path, REQUIRED] = Path()
    """Output file, captions.jsonl or captions.jsonl.gz; statistics are written next to it as
    *.stats.json."""
    types: tuple[str, ...] = ()
    """Negative types, or the families hnc, swaps, negclip and structure_clip. Default: hnc and
    swaps."""
    balance: Literal["data", "image"] = "data"
    """Scope in which each word is as frequent in true captions as in false ones: data (the whole
    file, which is read twice) or image (each image alone, which gives fewer captions)."""
    per_image: int = 96
    """Maximum number of true captions per image. At most half of those about relations are about
    left and right, which are 89 % of GQA's relations."""
    tables: Path | None = None
    """Counts of the training graphs from 'hnc-ds tables', which replace the first pass: for other
    splits and for array jobs. With --balance image they also weight the draws of attributes and
    numbers."""
    open_world: bool = False
    """Also write negatives that the graph does not prove false, in exchanges within an image (with
    --balance data only for images with fewer than 60 pairs). They are tagged, and training draws
    them less often (--open_world_weight)."""
    by_colour: float = 2 / 3
    """Probability that a described noun carries its colour, if it has one, rather than another
    attribute."""
    hnc_json: Path | None = None
    """Also write the captions in the format of the released HNC files, to a .json or .json.gz
    file."""
    audit: bool = False
    """Measure how well text-only baselines separate true from false captions, and add the result to
    the statistics. Takes minutes for a large file and needs hnc-ds[audit]."""
    seed: int = 0
    """Seed for all draws; the same seed gives the same bytes."""
    workers: int = field(default_factory=cores)
    """Number of processes; does not affect the output."""
    part: str | None = None
    """Index of this array job and number of jobs, such as 0/4. All jobs write to the same --out on
    a shared disk, and the last one to finish joins the parts."""
    overwrite: bool = False
    """Replace an existing output file."""
    check: Path | None = None
    """Only check whether this file of scene graphs is complete; no other flag is needed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_image=self.per_image, workers=self.workers)
        share(by_colour=self.by_colour)
        _no_overwriting("generate", self.part, self.overwrite)
        if self.check is None and Path() in (self.scene_graphs, self.out):
            raise UserError("generate: pass --scene-graphs and --out, or only --check FILE")


@dataclass(frozen=True, kw_only=True)
class TablesConfig(Settings):
    """Count names, attributes and relations of scene graphs, as tables for 'generate'."""

    scene_graphs: Path
    """GQA's train_sceneGraphs.json, or a file in the same format (also .gz)."""
    out: Path
    """Output file, tables.json or tables.json.gz."""
    workers: int = field(default_factory=cores)
    """Number of processes; does not affect the output."""
    any_split: bool = False
    """Accept a file that is a validation or test split by its name."""
    overwrite: bool = False
    """Replace an existing output file."""


@dataclass(frozen=True, kw_only=True)
class SwapWordsConfig(Settings):
    """Generate hard negatives from captions by word swaps, as NegCLIP and Structure-CLIP do."""

    captions: Path
    """COCO's captions_*.json, Karpathy's dataset_*.json, NegCLIP's TSV, another CSV or TSV with a
    header, JSON Lines (also .gz), parquet, a folder of WebDataset tars or of a Hugging Face data
    set, or a quoted pattern such as 'cc3m/{00000..00331}.tar'."""
    out: Path
    """Output file, captions.jsonl or captions.jsonl.gz; statistics are written next to it as
    *.stats.json."""
    split: tuple[str, ...] = ()
    """Splits to read of Karpathy's file or of a Hugging Face data set, such as train restval.
    Default: all."""
    types: tuple[str, ...] = ()
    """Types of word swaps. Default: all."""
    per_caption: int = 3
    """Maximum number of word swaps per caption, of different types."""
    fluency_margin: float | None = None
    """Keep only swaps that a trigram model of the list's captions finds less likely than their
    caption by at most so many nats per swapped word, the most likely first. Default: all swaps."""
    keep_captions: Literal["all", "swapped"] = "all"
    """Captions to write: all, with an empty list of negatives where there is no swap, so that a
    plain baseline trains on the same data; or only those with negatives."""
    negative_columns: tuple[str, ...] = ()
    """Columns of a table, or keys of JSON, with further negatives: a caption or a list of captions.
    Columns of NegCLIP, CREPE, SugarCrepe and others are recognized automatically."""
    negative_type: tuple[str, ...] = ()
    """Type name of these negatives: one for all columns, or one per column."""
    seed: int = 0
    """Seed for all draws; the same seed gives the same bytes."""
    workers: int = field(default_factory=cores)
    """Number of processes; does not affect the output."""
    overwrite: bool = False
    """Replace an existing output file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_caption=self.per_caption, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class RewriteConfig(Settings):
    """Add captions written by a language model and verified by the scene graph (experimental)."""

    captions: Path
    """Output of 'hnc-ds generate', captions.jsonl or captions.jsonl.gz."""
    scene_graphs: Path
    """The scene graphs of these captions (also .gz), which prove every label."""
    model: str
    """Name of the model at the endpoint."""
    out: Path
    """Output file, captions.jsonl or captions.jsonl.gz: the input captions followed by those of the
    model; statistics are written next to it as *.stats.json."""
    endpoint: str = "http://localhost:8000/v1"
    """Base URL of an OpenAI-compatible server (vLLM, Ollama, llama.cpp), up to /v1. The API key is
    read from the environment variable OPENAI_API_KEY."""
    per_image: int = 8
    """Maximum number of caption groups per image to rewrite, drawn at random."""
    rewordings: int = 2
    """Number of paraphrases to request per caption, true and false ones alike."""
    negatives: int = 1
    """Number of new negatives to request per caption group (type rewrite); 0 requests paraphrases
    only."""
    temperature: float = 0.7
    """Sampling temperature of the model."""
    seed: int = 0
    """Seed for the choice of groups and for the model's sampling."""
    requests: int = 16
    """Maximum number of concurrent requests."""
    timeout: float = 120.0
    """Timeout of a request in seconds."""
    retries: int = 5
    """Maximum number of retries of a failed request, with exponential backoff."""
    cache: Path | None = None
    """SQLite file of the model's answers, which are never requested twice. Default:
    OUT.answers.sqlite. A job of --part reads this file and writes its own answers to
    OUT.answers.part-I.sqlite; the last job moves them all into this file."""
    audit: bool = False
    """Measure how well text-only baselines separate the model's true from its false captions, and
    add the result to the statistics. Needs hnc-ds[audit]."""
    part: str | None = None
    """Index of this array job and number of jobs, such as 0/4. All jobs write to the same --out on
    a shared disk, and the last one to finish joins the parts. Each job may have an endpoint of its
    own that serves the same model, and --requests counts for each."""
    overwrite: bool = False
    """Replace an existing output file; cached answers are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _no_overwriting("rewrite", self.part, self.overwrite)
        at_least(1, per_image=self.per_image, rewordings=self.rewordings, requests=self.requests)
        at_least(0.1, timeout=self.timeout)
        if not self.model.strip():
            raise UserError("model is empty; pass its name at the endpoint")


def _no_overwriting(stage: str, part: str | None, overwrite: bool) -> None:
    """Check that jobs of an array do not replace an output, which another may have just joined."""
    if read_part(part)[1] > 1 and overwrite:
        raise UserError(
            f"{stage}: --part and --overwrite exclude each other; remove the output first"
        )
