"""The command hnc-ds: parse, call one function, turn a UserError into one line and exit code 2.

Every stage is imported only when it is asked for, so that `hnc-ds generate` needs no torch.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, get_type_hints

import tyro

from hnc_ds.config import (
    AnswerConfig,
    BenchmarksConfig,
    CompareConfig,
    DemoConfig,
    DemoLlavaConfig,
    DoctorConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    GridConfig,
    InspectConfig,
    InterpolateConfig,
    MineConfig,
    PackConfig,
    ReportConfig,
    RewriteConfig,
    ScenesConfig,
    ScoreConfig,
    SwapWordsConfig,
    TablesConfig,
    TrainConfig,
)
from hnc_ds.config.flags import check_flags
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.exits import run
from hnc_ds.interruptions import explained, signals_raise
from hnc_ds.launch import own_arguments, read_slurm

Flat = tyro.conf.arg(name="")  # --steps, not --config.steps


def scenes(config: Annotated[ScenesConfig, Flat]) -> None:
    """Render scenes with exact scene graphs, to try everything on."""
    from hnc_ds.scenes.write import write_scenes

    write_scenes(config)


def generate(config: Annotated[GenerateConfig, Flat]) -> None:
    """Make captions and hard negatives from scene graphs."""
    from hnc_ds.captions.generate import generate

    generate(config)


def tables(config: Annotated[TablesConfig, Flat]) -> None:
    """Count names, attributes and relations of training graphs."""
    from hnc_ds.captions.first_pass import write_tables

    write_tables(config)


def swap_words(config: Annotated[SwapWordsConfig, Flat]) -> None:
    """Make NegCLIP's and Structure-CLIP's word swaps from a list of captions."""
    from hnc_ds.captions.swap_words import swap_words

    swap_words(config)


def rewrite(config: Annotated[RewriteConfig, Flat]) -> None:
    """Add captions in a language model's words, each proven by its scene graph (experimental)."""
    from hnc_ds.captions.rewrite.rewrite import rewrite

    rewrite(config)


def pack(config: Annotated[PackConfig, Flat]) -> None:
    """Pack images and captions into WebDataset tar shards."""
    from hnc_ds.shards.pack import pack

    pack(config)


def inspect(config: Annotated[InspectConfig, Flat]) -> None:
    """Show what shards or captions hold: counts per negative type, and samples."""
    if Path(config.shards).is_file():
        from hnc_ds.captions.contents import inspect_captions

        inspect_captions(config)
        return
    from hnc_ds.shards.contents import inspect_shards

    inspect_shards(config)


def mine(config: Annotated[MineConfig, Flat]) -> None:
    """Find similar images, so that training batches can hold them (--similar)."""
    from hnc_ds.evaluation.mine import mine

    mine(config)


def train(config: Annotated[TrainConfig, Flat]) -> None:
    """Fine-tune in this process; for several GPUs use the `deepspeed` launcher."""
    from hnc_ds.training.stops import Stops

    with Stops(ends_process=True) as stops:
        from hnc_ds.train import parse, train

        # Once more with the settings of --config or --preset as defaults, where they are given.
        train(parse(own_arguments()[1:]) if config.config or config.preset else config, stops)


def evaluate(config: Annotated[EvaluateConfig, Flat]) -> None:
    """Measure a model on held-out shards and on released benchmarks."""
    from hnc_ds.evaluation.evaluate import evaluate

    evaluate(config)


def benchmarks(config: Annotated[BenchmarksConfig, Flat]) -> None:
    """List what 'evaluate' can measure, what it needs and what of it is there."""
    from hnc_ds.evaluation.listing import list_benchmarks

    list_benchmarks(config)


def interpolate(config: Annotated[InterpolateConfig, Flat]) -> None:
    """Mix the weights of two models, and measure what each mixture keeps and gains (WiSE-FT)."""
    from hnc_ds.evaluation.interpolate import interpolate

    interpolate(config)


def export(config: Annotated[ExportConfig, Flat]) -> None:
    """Write a model in another library's layout, or its tower into a LLaVA folder."""
    from hnc_ds.export.export import export

    export(config)


def answer(config: Annotated[AnswerConfig, Flat]) -> None:
    """Answer VQA v2.0 or TextVQA with a LLaVA folder."""
    from hnc_ds.llava.answer import answer

    answer(config)


def score(config: Annotated[ScoreConfig, Flat]) -> None:
    """Score answers to VQA v2.0 or TextVQA by the official rules."""
    from hnc_ds.llava.score import score

    score(config)


def compare(config: Annotated[CompareConfig, Flat]) -> None:
    """Compare two results files item by item: differences, tests, what changed."""
    from hnc_ds.report.two_models import compare_models

    compare_models(config)


def report(config: Annotated[ReportConfig, Flat]) -> None:
    """Compare runs in one HTML page."""
    from hnc_ds.report.page import report

    report(config)


def doctor(config: Annotated[DoctorConfig, Flat]) -> None:
    """Check a machine, or all nodes of a job, before hours go into it."""
    from hnc_ds.doctor.doctor import doctor

    doctor(config)


def grid(config: Annotated[GridConfig, Flat]) -> None:
    """List a grid of trainings, or print the flags of one (slurm/sweep.sh)."""
    from hnc_ds.grid import grid

    grid(config)


def demo(config: Annotated[DemoConfig, Flat]) -> None:
    """Run every stage on rendered scenes: plain CLIP against hard negatives."""
    from hnc_ds.demo import demo

    demo(config)


def demo_llava(config: Annotated[DemoLlavaConfig, Flat]) -> None:
    """The experiment with LLaVA in little, on rendered scenes."""
    from hnc_ds.llava.miniature.demo import demo_llava

    demo_llava(config)


COMMANDS: dict[str, Callable[..., None]] = {
    "scenes": scenes,
    "generate": generate,
    "tables": tables,
    "swap-words": swap_words,
    "rewrite": rewrite,
    "pack": pack,
    "inspect": inspect,
    "mine": mine,
    "train": train,
    "evaluate": evaluate,
    "benchmarks": benchmarks,
    "interpolate": interpolate,
    "export": export,
    "answer": answer,
    "score": score,
    "compare": compare,
    "report": report,
    "doctor": doctor,
    "grid": grid,
    "demo": demo,
    "demo-llava": demo_llava,
}


def main() -> int:
    """Exit status, as ``exits.run`` has it."""
    command = next((argument for argument in own_arguments() if argument in COMMANDS), "hnc-ds")
    with signals_raise(command):
        return run("hnc-ds", partial(_parse_and_run, command))


def _parse_and_run(command: str) -> None:
    given = own_arguments()
    read_slurm()
    _check(given)
    # Flags are those of the command's settings, in the words of the deepspeed launcher too.
    with explained(command):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="hnc-ds",
            description="Teach CLIP with hard negative captions.",
            args=given,
        )


def _check(given: list[str]) -> None:
    """Refuse a command or a flag that does not exist, with the nearest that does.

    Raises:
        UserError: There is none of that name.
    """
    if not given or given[0].startswith("-"):
        return
    command = COMMANDS.get(given[0])
    if command is None:
        near = did_you_mean(given[0], COMMANDS) or "; 'hnc-ds --help' lists them"
        raise UserError(f"no command '{given[0]}'{near}")
    check_flags(get_type_hints(command)["config"], given[1:], given[0])


if __name__ == "__main__":
    sys.exit(main())
