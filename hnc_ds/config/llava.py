"""Settings of exports, of questions to LLaVA, and of scoring its answers."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hnc_ds.config.checks import Settings, at_least, read_part
from hnc_ds.config.cores import readers
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Write a model in another library's layout, or its tower into a LLaVA (hnc_ds/export)."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run (its newest checkpoint), a checkpoint folder, an open_clip model with its tag or file
    of weights (ViT-L-14-336-quickgelu:openai), hf-hub:... or local-dir:...."""

    out: Path
    """Folder to write."""

    to: Literal["open_clip", "hf"] | None = None
    """Whose layout: open_clip's local-dir, or Hugging Face's CLIPModel."""

    into: Path | None = None
    """A LLaVA folder of Hugging Face's; what is written is that folder with the model's tower."""

    average: bool = False
    """Take the averaged weights of a run that was trained with --ema."""

    probe: Path | None = None
    """Folder of pictures by which both layouts are compared, and features before and after; a few
    made-up ones when not given."""

    overwrite: bool = False
    """Replace what is in --out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.to is None) == (self.into is None):
            raise UserError("export: give either --to open_clip, --to hf, or --into LLAVA_DIR")
        if self.into is not None and self.into.resolve() == self.out.resolve():
            raise UserError("export: --out is --into; choose another folder")


@dataclass(frozen=True, kw_only=True)
class AnswerConfig(Settings):
    """Answer VQA v2.0 or TextVQA with a LLaVA folder (hnc_ds/llava)."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="LLAVA_DIR")]]
    """A folder of LLaVA-1.5 in Hugging Face's layout, as 'hnc-ds export --into' writes one."""

    dataset: Literal["vqav2", "textvqa"]
    """Which questions these are."""

    questions: Path
    """The data set's questions, or LLaVA's JSON Lines."""

    images: Path
    """Folder of their pictures."""

    out: Path | None = None
    """Folder for the answers; the same command goes on with what is there. Needed unless --check is
    given."""

    ocr: Path | None = None
    """TextVQA_Rosetta_OCR_v0.2_val.json, to ask with the words that were read in the pictures;
    without it TextVQA is asked without them."""

    batch: int = 128
    """Most questions answered at once; halved where memory does not suffice. 128 of LLaVA-1.5-7B
    take about 30 GB in half precision."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights: auto is float16 on a GPU, as LLaVA has it, float32 on a CPU. In half
    precision an answer may depend on what is answered beside it."""

    strict: bool = False
    """One question at a time in float32, whatever --batch and --dtype say."""

    longest: int = 128
    """Most tokens of an answer."""

    part: str | None = None
    """Which part of the questions, and of how many, such as 0/4, for a job of an array. Processes
    of a launcher (deepspeed, torchrun, srun) share the part among them without it."""

    allow_missing: bool = False
    """Answer questions whose pictures are missing or unreadable with nothing; counted."""

    normalise: bool = False
    """Write the answers for VQA v2.0's server as LLaVA's conversion script does: processed once
    before the server processes them again."""

    complete_with: Path | None = None
    """v2_OpenEnded_mscoco_test2015_questions.json (or LLaVA's file of test2015): questions that are
    in it and were not asked get an empty answer in answers.vqa.json. The server of VQA v2.0 takes
    no file without all of them, also for test-dev."""

    check: bool = False
    """Look whether all is there, and answer nothing."""

    workers: int = field(default_factory=lambda: min(4, readers()))
    """Processes that read images. A core reads about 90 a second, a GPU answers the questions about
    some 40."""

    cuda_graphs: bool = False
    """Replay the steps of answers as CUDA graphs. For small batches on a fast GPU, where Python
    needs longer to launch a step than the GPU to compute it. A graph whose first replay gives other
    tokens than the step without it is not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch=self.batch, longest=self.longest)
        at_least(0, workers=self.workers)
        if self.out is None and not self.check:
            raise UserError("answer: no --out; name a folder for the answers")
        if self.ocr is not None and self.dataset != "textvqa":
            raise UserError("answer: --ocr is for textvqa")
        if self.complete_with is not None and self.dataset != "vqav2":
            raise UserError("answer: --complete-with is for vqav2")
        _ = self.place

    @property
    def place(self) -> tuple[int, int]:
        """Number of this process, and how many there are.

        Raises:
            UserError: --part is none.
        """
        part, parts = read_part(self.part)
        # As a launcher said, or SLURM (launch.py).
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return part * ranks + rank, parts * ranks


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Settings):
    """Score answers by the official rules of VQA v2.0 and TextVQA (hnc_ds/llava)."""

    dataset: Literal["vqav2", "textvqa"]
    """Which questions were answered."""

    annotations: Path
    """What people answered: v2_mscoco_val2014_annotations.json, TextVQA_0.5.1_val.json."""

    answers: Path
    """Of a model: JSON Lines of 'hnc-ds answer' or of LLaVA, or the VQA server's JSON list."""

    out: Path
    """results.json; every answer with its scores goes beside it as *.items.jsonl."""

    questions: Path | None = None
    """VQA v2.0's questions, to show what was asked."""

    images: Path | None = None
    """Folder of the pictures, to show them in reports."""

    per_item: Path | None = None
    """FILE.jsonl for a line {question_id, score} of each question, by the data set's own scorer."""

    allow_missing: bool = False
    """Score questions that are not answered as if the answer were empty; counted."""

    name: str | None = None
    """What to call the model in the results; as the answers do when not given."""

    seed: int = 0
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix != ".json" or self.out.is_dir():
            raise UserError(f"--out is {self.out}; name a file that ends in .json")
