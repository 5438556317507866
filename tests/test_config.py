"""Settings that are checked before anything begins."""

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from hnc_ds import config
from hnc_ds.config import LOSS_TERMS, PRESETS, DataConfig, LossConfig, ScopeConfig, TrainConfig
from hnc_ds.config.checks import Settings
from hnc_ds.errors import UserError
from hnc_ds.objective.terms import TERMS


def test_every_term_but_the_pull_of_the_weights_is_a_function_of_embeddings() -> None:
    assert set(TERMS) == set(LOSS_TERMS) - {"l2_to_start"}


def test_alpha_goes_on_a_line_or_in_a_step_and_then_stays() -> None:
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
        ({"terms": {"l2_to_start": 1.0}}, "nothing is learned from images"),
        ({"terms": {"contrastive": 0.0}}, "nothing is learned from images"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha_end": -1.0}, "alpha_end is -1.0"),
        ({"beta": 0.0}, "beta is 0.0"),
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
        ({"lora_alpha": 2.0}, "lora_alpha is nothing without lora_rank"),
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
    "ScenesConfig": {"out": FILE},
    "ScoreConfig": {"dataset": "vqav2", "annotations": FILE, "answers": FILE, "out": FILE},
    "ScopeConfig": {"lora_rank": 2},
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
    wrong += [2**63, 10**400, 1.5] if kind is int else []
    for number in wrong:
        with pytest.raises(UserError, match=rf"{name}.* is .*; it must be"):
            replace(settings, **{name: like(hint, number)})


ZERO_IS_NOTHING = {
    "TrainConfig": (
        "steps",
        "log_every",
        "save_every",
        "keep_last",
        "patience",
        "eval_every",
        "stop_early",
    ),
    "LossConfig": ("beta", "tau", "alpha_steps", "distill_tau"),
    "ScopeConfig": ("lora_rank", "lora_alpha"),
    "DataConfig": ("crop", "nearest", "cache_gb"),
    "DemoConfig": ("train", "val", "steps", "ranks"),
    "DemoLlavaConfig": ("train", "val", "steps", "more_steps", "lessons", "width", "layers"),
    "AnswerConfig": ("batch", "longest"),
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
