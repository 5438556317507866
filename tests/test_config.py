"""Settings that are checked before anything begins."""

import pytest

from hnc_ds.config import LOSS_TERMS, PRESETS, DataConfig, LossConfig, ScopeConfig, TrainConfig
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
