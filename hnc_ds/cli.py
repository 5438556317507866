"""The command hnc-ds: parses flags, calls one function, and reports a UserError in one line.

Stages are imported on use, so that commands without torch, such as `hnc-ds generate`, start fast.
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro

from hnc_ds import config as settings
from hnc_ds.config.checks import Settings
from hnc_ds.config.flags import check_flags, given_flags, one_line_errors
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.interruptions import explained, run, signals_raise
from hnc_ds.launch import importing, own_arguments, read_slurm

STAGES: dict[str, tuple[type[Settings], str]] = {
    "scenes": (settings.ScenesConfig, "scenes.write.write_scenes"),
    "generate": (settings.GenerateConfig, "captions.generate.generate"),
    "tables": (settings.TablesConfig, "captions.first_pass.write_tables"),
    "swap-words": (settings.SwapWordsConfig, "captions.swap_words.swap_words"),
    "rewrite": (settings.RewriteConfig, "captions.rewrite.rewrite.rewrite"),
    "pack": (settings.PackConfig, "shards.pack.pack"),
    "inspect": (settings.InspectConfig, "cli.inspect"),
    "mine": (settings.MineConfig, "evaluation.mine.mine"),
    "train": (settings.TrainConfig, "cli.train"),
    "evaluate": (settings.EvaluateConfig, "evaluation.evaluate.evaluate"),
    "benchmarks": (settings.BenchmarksConfig, "evaluation.inputs.list_benchmarks"),
    "interpolate": (settings.InterpolateConfig, "interpolation.interpolate"),
    "export": (settings.ExportConfig, "export.export.export"),
    "answer": (settings.AnswerConfig, "llava.answer.answer"),
    "score": (settings.ScoreConfig, "llava.score.score"),
    "compare": (settings.CompareConfig, "report.compare.compare_models"),
    "report": (settings.ReportConfig, "cli.report"),
    "doctor": (settings.DoctorConfig, "doctor.doctor"),
    "grid": (settings.GridConfig, "grid.grid"),
    "slurm-scripts": (settings.SlurmScriptsConfig, "slurm_scripts.slurm_scripts"),
    "demo": (settings.DemoConfig, "demo.demo"),
    "demo-llava": (settings.DemoLlavaConfig, "llava.tiny.demo_llava"),
}
"""Command -> its settings, whose docstring is its help, and its function in hnc_ds."""


def _command(of: type[Settings], place: str) -> Callable[..., None]:
    """A row of STAGES as a function for tyro, which imports the stage when it is called."""
    module, _, name = place.rpartition(".")

    def command(config: Settings) -> None:
        with importing():
            stage = import_module(f"hnc_ds.{module}")
        getattr(stage, name)(config)

    command.__doc__ = of.__doc__
    # --steps, not --config.steps
    command.__annotations__ = {"config": Annotated[of, tyro.conf.arg(name="")], "return": None}
    return command


COMMANDS = {name: _command(*stage) for name, stage in STAGES.items()}


def inspect(config: settings.InspectConfig) -> None:
    """Inspect a captions file, or shards."""
    if Path(config.shards).is_file():
        from hnc_ds.captions.contents import inspect_captions

        inspect_captions(config)
        return
    with importing():
        from hnc_ds.shards.contents import inspect_shards

    inspect_shards(config)


def train(config: settings.TrainConfig | None) -> None:
    """Train in this process. Signals are handled before torch is imported.

    Args:
        config: None for flags that change the settings of --config or --preset.
    """
    from hnc_ds.training.signals import Signals

    with Signals(ends_process=True) as stops:
        with importing():
            from hnc_ds.train import parse, start

        start(config or parse(own_arguments()[1:]), stops)


def report(config: settings.ReportConfig) -> None:
    """Write a table of runs, or the page about them, which needs the extra 'report'."""
    if config.table is not None:
        from hnc_ds.report.table_file import write_table

        write_table(config)
    if config.table is None or config.out is not None:
        with importing():
            from hnc_ds.report.page import report as write_page

        write_page(config)


def main() -> int:
    """Run a command; returns the exit status (``interruptions.run``)."""
    command = next((argument for argument in own_arguments() if argument in STAGES), "hnc-ds")
    with signals_raise(command):
        return run("hnc-ds", partial(_parse_and_run, command))


def _parse_and_run(command: str) -> None:
    given = own_arguments()
    read_slurm()
    _check(given)
    with explained(command), one_line_errors(given, command if command in STAGES else ""):
        if given[:1] == ["train"] and {"config", "preset"} & {*given_flags(given)}:
            train(None)
            return
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="hnc-ds",
            description="Fine-tune CLIP with hard negative captions.",
            args=given,
        )


def _check(given: list[str]) -> None:
    """Raise UserError for an unknown command or flag, with the nearest known one."""
    if not given or given[0].startswith("-"):
        return
    if given[0] not in STAGES:
        near = did_you_mean(given[0], STAGES) or "; 'hnc-ds --help' lists them"
        raise UserError(f"no command '{given[0]}'{near}")
    check_flags(STAGES[given[0]][0], given[1:], given[0])


if __name__ == "__main__":
    sys.exit(main())
