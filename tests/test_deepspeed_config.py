"""Reading DeepSpeed's JSON: what it would ignore or get wrong is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.errors import UserError

GOOD: dict[str, Any] = {
    "train_batch_size": 64,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "zero_optimization": {"stage": 2},
}


def written(folder: Path, config: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def shipped() -> list[Path]:
    return sorted(find_deepspeed_config(Path("cpu")).parent.glob("*.json"))


def test_every_shipped_config_is_read_and_resolved() -> None:
    names = {path.stem for path in shipped()}
    assert {
        "cpu",
        "zero1_fp16",
        "zero1_fp32",
        "zero2_bf16",
        "zero2_bf16_offload",
        "zero3_bf16",
    } <= names
    for path in shipped():
        resolved = resolve(read_deepspeed_config(path), path, ranks=8, steps=500)
        assert resolved["train_micro_batch_size_per_gpu"] * 8 == resolved["train_batch_size"]
        assert resolved["scheduler"]["params"]["total_num_steps"] == 500


def test_every_shipped_config_is_one_that_deepspeed_accepts() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    for path in shipped():
        config = resolve(read_deepspeed_config(path), path, ranks=1, steps=500)
        read = DeepSpeedConfig(config)
        assert read.zero_optimization_stage == config["zero_optimization"]["stage"]


@pytest.mark.parametrize("given", ["cpu", "cpu.json", "ds_configs/cpu.json"])
def test_a_shipped_config_is_found_by_name_from_anywhere(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_deepspeed_config(Path(given)).name == "cpu.json"


def test_a_missing_config_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no DeepSpeed config at .*zero2_bf16"):
        find_deepspeed_config(tmp_path / "zero2_bf16.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zero_optimisation": {}}, "unknown section 'zero_optimisation'; DeepSpeed would ignore"),
        ({"hnc": {}}, "unknown section 'hnc'"),
        ({"pipeline": {"stages": 2}}, "section 'pipeline' is not supported here; remove it"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps is True"),
        ({"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}, "stage to 1, 2 or 3"),
        ({"optimizer": None}, "no optimizer"),
        ({"train_batch_size": None}, "no train_batch_size"),
        ({"train_batch_size": "auto"}, "train_batch_size is 'auto'"),
        ({"zero_optimization": {"stage": 4}}, "stage is 4"),
    ],
)
def test_what_deepspeed_would_ignore_or_get_wrong_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        read_deepspeed_config(written(tmp_path, config))


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"train_batch_size": 8,}'])
def test_what_is_not_a_json_object_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        read_deepspeed_config(path)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_would() -> None:
    with pytest.raises(UserError, match=r"64 does not divide by 3 ranks; 63 would"):
        resolve(GOOD, Path("c.json"), ranks=3, steps=10)


def test_the_batch_follows_from_the_rows_of_a_rank_if_only_they_are_given() -> None:
    config = {key: value for key, value in GOOD.items() if key != "train_batch_size"}
    resolved = resolve(config | {"train_micro_batch_size_per_gpu": 16}, Path("c.json"), 4, 10)
    assert resolved["train_batch_size"] == 64
    with pytest.raises(UserError, match="train_micro_batch_size_per_gpu is 24"):
        resolve(GOOD | {"train_micro_batch_size_per_gpu": 24}, Path("c.json"), ranks=2, steps=10)


@pytest.mark.parametrize(
    "given",
    [
        {"train_batch_size": 64, "gradient_accumulation_steps": 4},
        {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8},
        {"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 4},
        {
            "train_batch_size": 64,
            "train_micro_batch_size_per_gpu": 8,
            "gradient_accumulation_steps": 4,
        },
    ],
)
def test_any_two_of_batch_rows_and_parts_give_the_third(given: dict[str, int]) -> None:
    config = {key: value for key, value in GOOD.items() if key != "train_batch_size"} | given
    resolved = resolve(config, Path("c.json"), ranks=2, steps=10)
    assert resolved["train_batch_size"] == 64
    assert resolved["train_micro_batch_size_per_gpu"] == 8
    assert resolved["gradient_accumulation_steps"] == 4


def test_a_batch_that_does_not_divide_into_parts_is_refused_with_one_that_would() -> None:
    given = GOOD | {"gradient_accumulation_steps": 5}
    with pytest.raises(UserError, match=r"64 does not divide by 3 ranks times 5 .*; 60 would"):
        resolve(given, Path("c.json"), ranks=3, steps=10)


def test_resolving_leaves_the_users_settings_as_they_were() -> None:
    before = json.dumps(GOOD)
    resolve(GOOD, Path("c.json"), ranks=2, steps=10)
    assert json.dumps(GOOD) == before
