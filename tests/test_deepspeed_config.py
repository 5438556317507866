"""Reading DeepSpeed's JSON: what it would ignore or get wrong is refused."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.engine import deepspeed_config, engine
from hnc_ds.engine.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.engine.deepspeed_keys import (
    IN_ANY_CASE,
    OPTIMIZERS,
    SCHEDULERS,
    SECTIONS,
    UNSUPPORTED_SECTIONS,
    Kind,
)
from hnc_ds.engine.engine import check_with_deepspeed
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


def of_zero(**changes: object) -> dict[str, Any]:
    return {"zero_optimization": {"stage": 2, **changes}}


def of_adam(**params: object) -> dict[str, Any]:
    return {"optimizer": {"type": "AdamW", "params": {"lr": 1e-5, **params}}}


def of_schedule(kind: str, **params: object) -> dict[str, Any]:
    return {"scheduler": {"type": kind, "params": params}}


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
        ({"gradient_checkpointing": True}, "the flag --grad_checkpointing does it"),
        (
            {"activation_checkpointing": {"cpu_checkpointing": True}},
            "the flag --grad_checkpointing",
        ),
        (
            of_zero(offload_optimizer={"device": "gpu"}),
            "offload_optimizer.device is 'gpu'; it must",
        ),
        (
            of_zero(offload_optimiser={}),
            "'zero_optimization.offload_optimiser'.*'offload_optimizer'",
        ),
        (of_zero(stage="2"), "zero_optimization.stage is '2'; it must be 0, 1, 2 or 3, a number"),
        (of_zero(stage=True), "zero_optimization.stage is True"),
        (
            of_zero(reduce_bucket_size=0),
            "reduce_bucket_size is 0; it must be a whole number from 1",
        ),
        (of_zero(overlap_comm="yes"), "overlap_comm is 'yes'; it must be true or false or null"),
        (of_zero(offload_param={"device": "cpu"}), "offload_param is for stage 3"),
        (of_zero(zenflow={}), "'zero_optimization.zenflow' is not supported here"),
        ({"zero_optimization": "2"}, "zero_optimization is '2'; it must be a section"),
        ({"zero_optimization": []}, r"zero_optimization is \[\]; it must be a section"),
        (of_adam(lr="fast"), "optimizer.params.lr is 'fast'; it must be a number from 0"),
        (of_adam(lr="1e-5"), "optimizer.params.lr is '1e-5'; it must be a number from 0"),
        (of_adam(lr=-1e-5), "optimizer.params.lr is -1e-05; it must be a number from 0"),
        (
            of_adam(lr="auto"),
            r"optimizer.params.lr \(a number from 0\) is 'auto', which only Hugging",
        ),
        (of_adam(wieght_decay=0.1), "'optimizer.params.wieght_decay'.*did you mean 'weight_decay'"),
        (of_adam(betas=[0.9]), r"betas is \[0.9\]; it must be two numbers from 0 to less than 1"),
        (of_adam(max_grad_norm=1), "write gradient_clipping at the top"),
        (
            {"optimizer": {"type": "AdmW", "params": {}}},
            "optimizer.type is 'AdmW'; did you mean 'Ad",
        ),
        (
            {"optimizer": {"type": "sgd", "params": {}}},
            "optimizer.type is 'sgd'; did you mean 'SGD'",
        ),
        (
            {"optimizer": {"params": {"lr": 1}}},
            "optimizer.type is missing; write one of Adam, AdamW",
        ),
        (of_schedule("WarmupLR", warmup_num_steps="auto"), "warmup_num_steps .* is 'auto', which"),
        (of_schedule("WarmupLR", warmup_steps=10), "write scheduler.params.warmup_num_steps"),
        (of_schedule("WarmupCosineLR"), "total_num_steps is missing; 'auto' is the --steps of"),
        (of_schedule("CosineLR"), "scheduler.type is 'CosineLR'; did you mean 'WarmupCosineLR'"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler.params is missing"),
        ({"gradient_clipping": -1}, "gradient_clipping is -1; it must be a number from 0"),
        ({"gradient_clipping": True}, "gradient_clipping is True"),
        ({"steps_per_print": 0}, "steps_per_print is 0; it must be a whole number from 1"),
        ({"bf16": {"enabled": "auto"}}, r"bf16.enabled \(true or false\) is 'auto'"),
        ({"bf16": {"enabled": 1}}, "bf16.enabled is 1; it must be true or false"),
        ({"bf16": True}, "bf16 is True; it must be a section"),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, "both enabled; choose one"),
        ({"fp16": {"enabled": True, "loss_scale": -1}}, "fp16.loss_scale is -1"),
        ({"gradient_allreduce_op": "sum"}, "gradient_allreduce_op is 'sum'"),
        ({"sparse_gradients": True}, "section 'sparse_gradients' is not supported here; remove it"),
        ({"wandb": {"enabled": True}}, "wandb needs the package wandb: pip install it, or remove"),
        ({"comet": {"enabled": True}}, "comet needs the package comet_ml"),
        ({"tensorboard": {"enabled": True, "output_path": __file__}}, "cannot be written; name"),
        ({"csv_monitor": {"enabled": True, "output_path": __file__}}, "cannot be written; name"),
        ({"hnc": {}}, "unknown section 'hnc'"),
        ({"pipeline": {"stages": 2}}, "section 'pipeline' is not supported here; remove it"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps is True"),
        ({"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}, "stage to 1, 2 or 3"),
        (
            of_zero(stage=1)
            | {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
            "grad_accum_dtype fp32 with bf16 .* zero_optimization.stage to 2",
        ),
        ({"optimizer": None}, "no optimizer"),
        ({"optimizer": {"type": "NAdam"}}, "NAdam has a state that checkpoints cannot hold"),
        ({"optimizer": {"type": "Muon"}}, "Muon has a state that checkpoints cannot hold"),
        (
            of_zero(stage=2) | {"optimizer": {"type": "Adagrad"}},
            "Adagrad under ZeRO has a state that checkpoints cannot hold",
        ),
        ({"train_batch_size": None}, "no train_batch_size"),
        ({"train_batch_size": "auto"}, r"train_batch_size \(a whole number from 1\) is 'auto'"),
        ({"zero_optimization": {"stage": 4}}, "stage is 4"),
    ],
)
def test_what_deepspeed_would_ignore_or_get_wrong_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepspeed_config, "find_spec", lambda _: None)
    config = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        read_deepspeed_config(written(tmp_path, config))


@pytest.mark.parametrize("section", [*GOOD, "bf16", "scheduler", "activation_checkpointing"])
def test_a_section_that_is_null_is_refused(section: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{section} is null; it must be a"):
        read_deepspeed_config(written(tmp_path, GOOD | {section: None}))


def test_all_values_that_were_left_to_hugging_faces_trainer_are_named_at_once(
    tmp_path: Path,
) -> None:
    config = GOOD | of_adam(lr="auto", betas="auto") | {"fp16": {"enabled": "auto"}}
    with pytest.raises(UserError) as refused:
        read_deepspeed_config(written(tmp_path, config))
    assert "\n" not in str(refused.value)
    for flaw in (
        "params.lr (a number",
        "params.betas (two numbers",
        "fp16.enabled (true or false)",
    ):
        assert flaw in str(refused.value)


OFFLOADS = "runtime.zero.offload_config.DeepSpeedZeroOffload"
MODELS = {
    "zero_optimization": "runtime.zero.config.DeepSpeedZeroConfig",
    "zero_optimization.offload_param": f"{OFFLOADS}ParamConfig",
    "zero_optimization.offload_optimizer": f"{OFFLOADS}OptimizerConfig",
    "zero_optimization.leaf_module": (
        "runtime.zero.leaf_module_config.DeepSpeedZeroLeafModuleConfig"
    ),
    "bf16": "runtime.precision_config.DeepSpeedBF16Config",
    "fp16": "runtime.precision_config.DeepSpeedFP16Config",
    "comms_logger": "comm.config.CommsLoggerConfig",
    "tensorboard": "monitor.config.TensorBoardConfig",
    "csv_monitor": "monitor.config.CSVConfig",
    "wandb": "monitor.config.WandbConfig",
    "comet": "monitor.config.CometConfig",
}


@pytest.mark.parametrize("section", MODELS)
def test_the_keys_of_a_section_are_those_of_deepspeeds_own_model(section: str) -> None:
    module, name = f"deepspeed.{MODELS[section]}".rsplit(".", 1)
    fields = getattr(importlib.import_module(module), name).model_fields
    own: Any = SECTIONS
    for part in section.split("."):
        own = own[part]
    names = {str(key) for field, info in fields.items() for key in (field, info.alias or field)}
    assert set(own) == names - UNSUPPORTED_SECTIONS
    assert not [key for key, kind in own.items() if isinstance(kind, Kind) and not kind.description]


@pytest.mark.parametrize("kind", [*SCHEDULERS, *OPTIMIZERS])
def test_the_parameters_of_a_type_are_those_of_its_own_function(kind: str) -> None:
    from deepspeed.runtime import lr_schedules

    ours = set((OPTIMIZERS | SCHEDULERS)[kind])
    made = getattr(lr_schedules, kind, None) or getattr(torch.optim, kind, None)
    if made is None:  # a CUDA kernel's, which cannot be imported everywhere
        assert kind in ("Lamb", "Lion")
        return
    names = set(inspect.signature(made).parameters) - {"optimizer", "params"}
    if kind in IN_ANY_CASE:  # DeepSpeed has several of that name
        assert names <= ours | {"decoupled_weight_decay"}
    else:
        assert names == ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_zero(stage=3, compute_grad_norm=False), "compute_grad_norm=false is supported only"),
        ({"compile": {"nix": 1}}, r"c.json: DeepSpeed refuses it \(nix: Extra inputs"),
        (of_adam(), "optimizer.type AdamW of DeepSpeed needs a GPU; .*torch_adam"),
    ],
)
def test_errors_that_only_deepspeed_finds_are_one_line_of_its_own_words(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_with_deepspeed(GOOD | change, Path("c.json"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "3", '{"train_batch_size": 8,}', '{"gradient_clipping": NaN}'),
        '{"train_batch_size": 8, "train_batch_size": 16}',
    ],
)
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
def test_any_two_of_batch_micro_batch_and_accumulation_give_the_third(
    given: dict[str, int],
) -> None:
    config = {key: value for key, value in GOOD.items() if key != "train_batch_size"} | given
    resolved = resolve(config, Path("c.json"), ranks=2, steps=10)
    assert resolved["train_batch_size"] == 64
    assert resolved["train_micro_batch_size_per_gpu"] == 8
    assert resolved["gradient_accumulation_steps"] == 4


def test_a_batch_that_does_not_divide_into_micro_batches_is_refused_with_one_that_would() -> None:
    given = GOOD | {"gradient_accumulation_steps": 5}
    with pytest.raises(UserError, match=r"64 does not divide by 3 ranks times 5 .*; 60 would"):
        resolve(given, Path("c.json"), ranks=3, steps=10)


def test_resolving_leaves_the_users_settings_as_they_were() -> None:
    before = json.dumps(GOOD)
    resolve(GOOD, Path("c.json"), ranks=2, steps=10)
    assert json.dumps(GOOD) == before


def test_what_deepspeed_has_compiled_is_compiled_when_it_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how: list[dict[str, Any]] = []

    def compiled(function: Any, **given: Any) -> Any:
        how.append(given)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    with engine._compiled_when_called():
        double = torch.compile(lambda number: 2 * number, dynamic=True)
    assert torch.compile is compiled
    assert how == []
    assert [double(2), double(3)] == [4, 6]
    assert how == [{"dynamic": True}]
