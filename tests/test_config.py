"""Settings that are checked before anything begins."""

import importlib
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import tyro

from hnc_ds import cli, config
from hnc_ds.checkpoint import to_json, updated
from hnc_ds.cli import COMMANDS, STAGES
from hnc_ds.config import (
    LOSS_TERMS,
    PRESETS,
    DataConfig,
    LossConfig,
    PackConfig,
    ScopeConfig,
    TrainConfig,
)
from hnc_ds.config.checks import Settings
from hnc_ds.config.flags import IN_DEEPSPEEDS_JSON, OTHER_FLAGS, check_flags, flags_of
from hnc_ds.config.help import COMMON
from hnc_ds.engine.deepspeed_keys import SECTIONS
from hnc_ds.errors import UserError, counted
from hnc_ds.monitor import TAGS
from hnc_ds.objective.matching import MATCH_TERMS
from hnc_ds.objective.terms import TERMS


def test_every_term_but_that_on_weights_is_a_function_whose_parts_are_logged() -> None:
    functions = {**TERMS, **MATCH_TERMS}
    assert set(functions) == set(LOSS_TERMS) - {"l2_sp"}
    assert not set(TERMS) & set(MATCH_TERMS)
    for name, term in LOSS_TERMS.items():
        assert {f"loss/{tag}" for tag in term.tags} <= set(TAGS)
        assert name not in functions or functions[name].__name__ == name


def test_alpha_changes_linearly_or_in_a_step_and_is_constant_after() -> None:
    line = LossConfig(alpha=1.0, alpha_end=3.0, alpha_steps=4)
    assert [line.alpha_at(step) for step in range(6)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    step = LossConfig(alpha=1.0, alpha_end=0.0, alpha_steps=2, alpha_schedule="step")
    assert [step.alpha_at(number) for number in range(4)] == [1.0, 1.0, 0.0, 0.0]
    assert LossConfig(alpha=2.0).alpha_at(10**6) == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"terms": {"margn": 1.0}}, "no term 'margn'; did you mean 'margin'"),
        ({"terms": {"margin": -1.0}}, "the weight of margin is -1.0"),
        ({"terms": {"margin": float("nan")}}, "the weight of margin is nan"),
        ({"terms": {"l2_sp": 1.0}}, "nothing is learned from images"),
        ({"terms": {"contrastive": 0.0}}, "nothing is learned from images"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha_end": -1.0}, "alpha_end is -1.0"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"focal_gamma": 0.5}, "focal_gamma is 0.5; it must be 0, or 1 or more"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"text_tau": 0.0}, "text_tau is 0.0"),
        (
            {"terms": {"contrastive": 1.0, "l2_sp": 1.0}, "reference": "average"},
            "l2_sp pulls the weights to the start",
        ),
        ({"distill_tau": 0.0}, "distill_tau is 0.0"),
    ],
)
def test_a_loss_that_means_nothing_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LossConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "sees"),
    [
        ({"alpha": 0.0}, False),
        ({"alpha": 0.0, "alpha_end": 1.0}, True),
        ({"alpha": 0.0, "terms": {"margin": 1.0}}, True),
        ({"terms": {"distill": 1.0}, "distill_negatives": False}, False),
        ({}, True),
    ],
)
def test_negatives_are_embedded_only_where_something_is_learned_from_them(
    settings: dict[str, object], sees: bool
) -> None:
    assert LossConfig(**settings).sees_negatives() is sees  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_loss(name: str) -> None:
    assert LossConfig(**PRESETS[name]).weights()


def test_terms_of_negatives_need_some() -> None:
    with pytest.raises(UserError, match="terms margin need hard negatives"):
        TrainConfig(loss=LossConfig(terms={"margin": 1.0}), data=DataConfig(hard_negatives=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"last_blocks": -1}, "last_blocks is -1"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"lora_alpha": 2.0}, "lora_alpha needs lora_rank"),
        ({"lora_rank": 2, "last_blocks": 1}, "not both"),
    ],
)
def test_a_scope_that_means_nothing_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScopeConfig(**settings)  # type: ignore[arg-type]


def test_low_rank_changes_are_scaled_by_alpha_over_rank() -> None:
    assert ScopeConfig(lora_rank=4).lora_scale() == 1.0
    assert ScopeConfig(lora_rank=4, lora_alpha=8.0).lora_scale() == 2.0


FILE = Path("x.json")
NEEDED: dict[str, dict[str, Any]] = {
    "AnswerConfig": {"model": FILE, "dataset": "vqav2", "questions": FILE, "images": FILE}
    | {"out": FILE},
    "CompareConfig": {"first": FILE, "second": FILE},
    "DemoConfig": {},
    "EvaluateConfig": {"models": ("m",), "out": FILE},
    "ExportConfig": {"model": "m", "out": FILE, "to": "hf"},
    "GenerateConfig": {"scene_graphs": FILE, "out": FILE},
    "GridConfig": {"grid": FILE},
    "InspectConfig": {"shards": "s"},
    "InterpolateConfig": {"start": "a", "final": "b", "save": "0.5", "save_to": FILE},
    "MineConfig": {"run": FILE, "shards": "s", "out": FILE},
    "PackConfig": {"captions": FILE, "images": FILE, "out": FILE},
    "ReportConfig": {"runs": (FILE,)},
    "RewriteConfig": {"captions": FILE, "scene_graphs": FILE, "model": "m", "out": FILE},
    "ScenesConfig": {"out": FILE},
    "ScoreConfig": {"dataset": "vqav2", "annotations": FILE, "answers": FILE, "out": FILE},
    "ScopeConfig": {"lora_rank": 2},
    "SlurmScriptsConfig": {"folder": FILE},
    "SwapWordsConfig": {"captions": FILE, "out": FILE},
    "TablesConfig": {"scene_graphs": FILE, "out": FILE},
}
"""Settings that a command is nothing without."""


def every_settings() -> list[Settings]:
    kinds = [getattr(config, name) for name in config.__all__ if name.endswith("Config")]
    return [kind(**NEEDED.get(kind.__name__, {})) for kind in kinds]


def numbers() -> Iterator[Any]:
    """Every field of every settings that is a number, or may be one."""
    for settings in every_settings():
        hints = get_type_hints(type(settings))
        for field in fields(settings):  # type: ignore[arg-type]
            hint = hints[field.name]
            if found := {int, float} & {hint, *get_args(hint)}:
                (kind,) = found
                name = f"{type(settings).__name__}.{field.name}"
                yield pytest.param(settings, field.name, kind, hint, id=name)


def like(hint: Any, number: Any) -> Any:
    """A value of a field that holds the number."""
    origin = getattr(hint, "__origin__", None)
    return {"swap": number} if origin is dict else (number, 4) if origin is tuple else number


@pytest.mark.parametrize(("settings", "name", "kind", "hint"), list(numbers()))
def test_a_number_that_is_none_or_below_zero_is_refused_in_every_field_of_all_settings(
    settings: Any, name: str, kind: type, hint: Any
) -> None:
    wrong: list[Any] = [math.nan, math.inf, -math.inf, -1, True, "3"]
    wrong = [n for n in wrong if n != -1 or name not in settings.MAY_BE_NEGATIVE]
    wrong += [2**63, 10**400, 1.5] if kind is int else []
    for number in wrong:
        with pytest.raises(UserError, match=rf"{name}.* is .*; it must be"):
            replace(settings, **{name: like(hint, number)})


ZERO_IS_NOTHING = {
    "OptimizerConfig": ("lr", "batch_size"),
    "TrainConfig": (
        "steps",
        "epochs",
        "log_every",
        "save_every",
        "keep_last",
        "hang_timeout",
        "eval_every",
        "early_stopping_patience",
    ),
    "LossConfig": ("beta", "tau", "alpha_steps", "distill_tau"),
    "ScopeConfig": ("lora_rank", "lora_alpha"),
    "DataConfig": ("crop", "most_of_one", "nearest", "cache_gb"),
    "DemoConfig": ("train", "val", "steps", "ranks"),
    "DemoLlavaConfig": ("train", "val", "steps", "more_steps", "llava_steps", "width", "layers"),
    "AnswerConfig": ("batch", "max_new_tokens"),
    "EvaluateConfig": ("batch",),
    "MineConfig": ("batch", "k"),
    "GenerateConfig": ("workers", "per_image"),
}


@pytest.mark.parametrize("kind", ZERO_IS_NOTHING)
def test_zero_is_refused_where_nothing_would_come_of_it(kind: str) -> None:
    settings: Any = next(found for found in every_settings() if type(found).__name__ == kind)
    for name in ZERO_IS_NOTHING[kind]:
        with pytest.raises(UserError, match=f"{name} is 0"):
            replace(settings, **{name: 0})


def test_every_settings_class_has_the_common_check() -> None:
    assert all(isinstance(settings, Settings) for settings in every_settings())


@pytest.mark.parametrize("command", STAGES)
def test_the_function_of_a_command_takes_its_settings(command: str) -> None:
    settings, place = STAGES[command]
    module, _, name = place.rpartition(".")
    function = getattr(importlib.import_module(f"hnc_ds.{module}"), name)
    (wanted,) = [kind for name, kind in get_type_hints(function).items() if name != "return"]
    assert issubclass(settings, wanted)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command_are_those_that_its_help_lists(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = get_type_hints(COMMANDS[command])["config"]
    with pytest.raises(SystemExit):
        tyro.cli(settings, args=["--help"], prog="x", console_outputs=True)
    printed = capsys.readouterr().out
    listed = set(re.findall(r"^│? {0,2}(?:-h, )?--([a-z][a-z0-9-]*)", printed, re.M)) - {"help"}
    assert listed
    own = {name for name in flags_of(settings) if not name.startswith("no-")}
    assert {name.removeprefix("no-") for name in listed} == own
    together = flags_of(settings) - {"epochs"}  # --steps excludes it
    check_flags(settings, [f"--{name.replace('-', '_')}=1" for name in together])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train --learning_rate 1e-5", "train: no flag --learning_rate; use --lr"),
        ("train --batch=8", "train: no flag --batch; use --batch-size, of all GPUs together"),
        ("train --warmup 10", "train: no flag --warmup; use --warmup-steps"),
        ("train --wd 1", "train: no flag --wd; use --weight-decay"),
        ("train --betas 0.9", "train: no flag --betas; set optimizer.params.betas, in --deepspeed"),
        ("train --num_train_epochs 3", "train: no flag --num_train_epochs; use --epochs"),
        ("train --steps 9 --epochs=3", "train: --steps and --epochs both set the length of the"),
        ("train --epochs 0", "epochs is 0.0; it must be more than 0"),
        ("train --lr 0", "lr is 0.0; it must be more than 0, or nothing trains"),
        ("train --dry_run_gpus 8", "dry_run_gpus is for --dry_run; add it, or leave this out"),
        ("train --alpa 3", "train: no flag --alpa; did you mean '--alpha'?"),
        # --scene-graphs is of 'generate', which this is not
        ("train --scene-graphs 3", "train: no flag --scene-graphs; --help lists all flags"),
        ("evaluate m --batch_sise 3", "evaluate: no flag --batch_sise; did you mean '--batch'?"),
        ("generate --lr 3", "generate: no flag --lr; --help lists"),
        ("trian --steps 3", "no command 'trian'; did you mean 'train'?"),
        ("train --steps ten", "train: --steps cannot be 'ten'; it takes INT"),
        ("train --lr 3 --batch_size=1.5", "train: --batch-size cannot be '1.5'; it takes INT"),
        ("train --towers vision", "train: --towers cannot be 'vision'; give one of both, image"),
        ("answer --dtype float", "answer: --dtype cannot be 'float'; did you mean 'float32'?"),
        ("train --steps", "train: --steps needs a value"),
        ("train --run a b", "train: no flag takes 'b'; quote a value that has spaces"),
        ("pack", "pack: --captions and --out are missing; --help lists all flags"),
        ("inspect", "inspect: SHARDS is missing"),
        ("", "no command; 'hnc-ds --help' lists them"),
        ("compare a.json b.json --out ./a.json", "--out is a.json, a file to compare"),
        ("compare a.json b.json --out c.txt", "--out is c.txt; name a file that ends in .json"),
        (
            "answer m --dataset gqa --questions q --images i --out o --normalise",
            "answer: --normalise is for vqav2",
        ),
        (
            "score --dataset gqa --annotations a --answers b --out c.json --questions q",
            "score: --questions is for vqav2 and pope",
        ),
    ],
)
def test_arguments_that_a_command_does_not_take_are_one_line_of_what_to_do(
    arguments: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["hnc-ds", *arguments.split()])
    assert cli.main() == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith(f"hnc-ds: {line}")
    assert found.err.count("\n") == 1


def test_the_replacements_named_for_flags_of_other_tools_exist() -> None:
    for replacement in OTHER_FLAGS.values():
        assert replacement.removeprefix("--").split(":")[0].split(",")[0].split()[0] in flags_of(
            TrainConfig
        )
    for key in IN_DEEPSPEEDS_JSON.values():
        for one in key.partition(",")[0].split(" or "):
            assert one.split(".")[0] in SECTIONS
    assert not (set(IN_DEEPSPEEDS_JSON) | set(OTHER_FLAGS)) & flags_of(TrainConfig)


def test_a_count_has_its_noun_in_the_right_number() -> None:
    assert [counted(n, "rank") for n in (0, 1, 2, 1234)] == (
        ["0 ranks", "1 rank", "2 ranks", "1,234 ranks"]
    )
    assert counted(1, "question is", "questions are") == "1 question is"
    assert counted(3, "question is", "questions are") == "3 questions are"


HEADINGS = ["run", "model", "data", "objective", "optimizer", "evaluation", "checkpoint", "dry run"]


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("command", STAGES)
def test_help_has_no_none_no_empty_default_and_lines_of_one_width(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hnc-ds", command, "--help"])
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", True)
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    for empty in ("None}", "{None", "(default: )", "(default: None)", "(default: '')"):
        assert empty not in printed
    boxes = [line for line in printed.splitlines() if line[:1] in ("╭", "│", "╰")]
    assert {len(line) for line in boxes} == {len(boxes[0])}
    assert len(boxes[0]) <= columns
    headings = [line for line in boxes if line.startswith("╭─ ")]
    assert headings
    assert all(line.count(" ─") == 1 for line in headings)  # below each other, not beside


def test_the_flags_of_train_stand_under_their_headings_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hnc-ds", "train", "--help"])
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", True)
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert re.findall(r"╭─ (.*?) options ─", printed) == HEADINGS
    _, *parts = re.split(r"╭─ .*? options ─", printed)
    for heading, flags in {
        "run": ("--run", "--steps", "--epochs"),
        "model": ("--model", "--lora-rank"),
        "data": ("--shards", "--workers"),
        "objective": ("--preset", "--terms", "--alpha"),
        "optimizer": ("--deepspeed-config", "--lr", "--batch-size", "--warmup-steps"),
        "evaluation": ("--eval-shards", "--early-stopping-patience"),
        "checkpoint": ("--resume", "--save-every", "--keep-last"),
    }.items():
        part = parts[HEADINGS.index(heading)]
        assert all(f"│ {flag}" in part for flag in flags)


@pytest.mark.parametrize("kind", [kind for kind, _ in STAGES.values()])
def test_headings_name_fields_that_exist(kind: type[Settings]) -> None:
    grouped = [name for names in kind.GROUPS.values() for name in names]
    assert set(grouped) <= {field.name for field in fields(kind)}  # type: ignore[arg-type]
    assert len(grouped) == len(set(grouped))


def test_common_headings_are_of_fields_that_some_command_has() -> None:
    known = {field.name for kind, _ in STAGES.values() for field in fields(kind)}  # type: ignore[arg-type]
    grouped = [name for names in COMMON.values() for name in names]
    assert set(grouped) <= known
    assert len(grouped) == len(set(grouped))


def test_line_breaks_of_the_source_do_not_show_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(PackConfig, args=["--help"])
    lines = [line.strip(" \u2502\n") for line in capsys.readouterr().out.splitlines()]
    assert "a released HNC file (.json), or anything" in " ".join(lines)
    assert "a released HNC" not in lines


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "zero"}, "run/config.json.seed: expected int, got str"),
        ({"steps": 1.5}, "run/config.json.steps: expected int, got float"),
        ({"compile": 1}, "run/config.json.compile: expected bool, got int"),
        ({"run": 3}, "run/config.json.run: expected Path, got int"),
        ({"loss": {"alpha": "x"}}, "run/config.json.loss.alpha: expected float, got str"),
        ({"loss": {"terms": {"margin": "x"}}}, "run/config.json.loss.terms[...]: expected float"),
        ({"data": {"cache": 3}}, "run/config.json.data.cache: expected Path, got int"),
        ({"data": 3}, "run/config.json.data: must be an object of settings by name"),
        ({"data": {"seed": 3}}, "run/config.json.data: unknown setting 'seed'"),
        ({"model": {"image_mean": [0.5]}}, "run/config.json.model.image_mean: expected array of"),
        ({"seed": -1}, "run/config.json: seed is -1; it must be 0 or more"),
    ],
)
def test_a_wrong_value_in_a_settings_file_is_one_line_with_file_and_key(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        updated(TrainConfig(), values, "run/config.json")
    assert "\n" not in str(error.value)


def test_settings_are_the_same_after_they_were_written_and_read() -> None:
    settings = TrainConfig(
        run=Path("runs/a"),
        loss=LossConfig(terms={"contrastive": 1.0}),
        data=DataConfig(workers=3, cache=Path("c")),
        ema=0.5,
    )
    assert updated(TrainConfig(), to_json(settings), "config.json") == settings
