"""Settings of the captions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from hnc_ds.config.checks import REQUIRED, Settings, at_least, read_part, share
from hnc_ds.config.cores import cores
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Settings):
    """How captions are made from scene graphs (hnc_ds/captions)."""

    scene_graphs: Annotated[Path, REQUIRED] = Path()
    """GQA's train_sceneGraphs.json or val_sceneGraphs.json, or a file of that layout (.gz too)."""

    out: Annotated[Path, REQUIRED] = Path()
    """captions.jsonl or captions.jsonl.gz; the statistics go beside it as *.stats.json."""

    types: tuple[str, ...] = ()
    """Negative types to make, or families of them: hnc, swaps, negclip, structure_clip. When none
    is named: hnc and swaps."""

    balance: Literal["data", "image"] = "data"
    """Where every word stands as often in true captions as in false ones. data: over all images
    together, for which the graphs are read twice. image: in each image, whose statements exchange
    a part; fewer captions."""

    per_image: int = 96
    """Most true captions of an image; left and right, 89 % of GQA's relations, are at most half of
    those about relations."""

    tables: Path | None = None
    """Counts of the training graphs, from 'hnc-ds tables', in place of a first pass over the graphs
    at hand: for other splits, and for jobs of an array. With --balance image, attributes and
    numbers are also drawn as often as things have them."""

    open_world: bool = False
    """Also write negatives that are only not annotated as true, among the exchanges within an image
    (with --balance data where it has fewer than 60 pairs). They are tagged, and a training draws
    them less often (--open_world_weight)."""

    by_colour: float = 2 / 3
    """How often a noun's attribute is its colour, where it has one."""

    hnc_json: Path | None = None
    """Also write the captions in the layout of the released HNC files, .json or .json.gz."""

    audit: bool = False
    """Measure how far text alone gives the label away, and add it to the statistics. Takes minutes
    on a large file and needs hnc_ds[audit]."""

    seed: int = 0
    """Same seed, same bytes."""

    workers: int = field(default_factory=cores)
    """Processes. The bytes do not depend on it."""

    part: str | None = None
    """Which part of the work, and of how many, such as 0/4, for a job of an array; all write to one
    --out on a shared disk, and the last to be done puts the parts together."""

    overwrite: bool = False
    """Replace an existing file of captions."""

    check: Path | None = None
    """Only say whether this file of scene graphs is complete; needs no other flag."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_image=self.per_image, workers=self.workers)
        share(by_colour=self.by_colour)
        if read_part(self.part)[1] > 1 and self.overwrite:
            raise UserError(
                "generate: --part cannot --overwrite what others write; remove it before"
            )
        if self.check is None and Path() in (self.scene_graphs, self.out):
            raise UserError("generate: give --scene-graphs and --out, or only --check FILE")


@dataclass(frozen=True, kw_only=True)
class TablesConfig(Settings):
    """How often things, attributes and relations occur (hnc_ds/captions/tables.py)."""

    scene_graphs: Path
    """GQA's train_sceneGraphs.json, or a file of that layout (.gz too)."""

    out: Path
    """tables.json or tables.json.gz."""

    workers: int = field(default_factory=cores)
    """Processes. The counts do not depend on it."""

    any_split: bool = False
    """Also count a file whose name says validation or test."""

    overwrite: bool = False
    """Replace existing tables."""


@dataclass(frozen=True, kw_only=True)
class SwapWordsConfig(Settings):
    """Word swaps from a list of captions (hnc_ds/captions/swap_words.py)."""

    captions: Path
    """COCO's captions_*.json, Karpathy's dataset_*.json, NegCLIP's TSV, any other CSV or TSV with a
    header, or JSON Lines; .gz too."""

    out: Path
    """captions.jsonl or captions.jsonl.gz; the statistics go beside it as *.stats.json."""

    split: tuple[str, ...] = ()
    """Of Karpathy's file, the splits to read: train restval; all when none is named."""

    types: tuple[str, ...] = ()
    """Word swaps to make; all of them when none is named."""

    per_caption: int = 3
    """Most word swaps of a caption; of one type never more than one."""

    negative_columns: tuple[str, ...] = ()
    """Columns of a table, or keys of JSON, that hold negatives as well: a caption, or a list of
    them. Those of NegCLIP, CREPE, SugarCrepe and others are known without."""

    negative_type: tuple[str, ...] = ()
    """What these negatives are called: one name for all, or one for each column."""

    seed: int = 0
    """Same seed, same bytes."""

    workers: int = field(default_factory=cores)
    """Processes. The bytes do not depend on it."""

    overwrite: bool = False
    """Replace an existing file of captions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_caption=self.per_caption, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class RewriteConfig(Settings):
    """Captions in a language model's words (hnc_ds/captions/rewrite)."""

    captions: Path
    """captions.jsonl or captions.jsonl.gz, as 'hnc-ds generate' writes it."""

    scene_graphs: Path
    """The scene graphs that they were made from (.gz too); they prove every label."""

    model: str
    """Its name at the endpoint."""

    out: Path
    """captions.jsonl or captions.jsonl.gz: the captions that were read, and behind them those of
    the model; the statistics go beside it as *.stats.json."""

    endpoint: str = "http://localhost:8000/v1"
    """Address of an OpenAI-compatible server up to /v1: vLLM, Ollama, llama.cpp. An API key comes
    from the environment variable OPENAI_API_KEY."""

    per_image: int = 8
    """Most caption groups of an image that are reworded; they are drawn."""

    rewordings: int = 2
    """Other wordings to ask for, of a true caption and of a false one alike."""

    negatives: int = 1
    """Negatives of its own that the model is asked for, for each group (type rewrite); 0: it only
    rewords."""

    temperature: float = 0.7
    """Of the model's draws."""

    seed: int = 0
    """Of the groups that are drawn, and of the model's draws."""

    requests: int = 16
    """Requests under way at once."""

    timeout: float = 120.0
    """Seconds of a request."""

    retries: int = 5
    """Further attempts of a request that fails, with growing pauses."""

    cache: Path | None = None
    """File of the model's answers, so that nothing is asked twice; OUT.answers.sqlite if not
    given."""

    audit: bool = False
    """Measure how far text alone gives away the labels of what the model worded, and add it to the
    statistics. Needs hnc_ds[audit]."""

    overwrite: bool = False
    """Replace an existing file of captions; answers are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, per_image=self.per_image, rewordings=self.rewordings, requests=self.requests)
        at_least(0.1, timeout=self.timeout)
        if not self.model.strip():
            raise UserError("model is empty; give its name at the endpoint")
