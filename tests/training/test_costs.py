"""What a dry run prints beside what DeepSpeed, torch and a run really take."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.config import ModelConfig, TrainConfig
from hnc_ds.distributed import rank, world_size
from hnc_ds.engine.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.engine.engine import Engine
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_model, without_weights
from hnc_ds.train import main
from hnc_ds.training import costs, grad_cache
from hnc_ds.training.activations import measure_activations
from hnc_ds.training.costs import count_parameters, state_parts
from tests.distributed.test_zero import CASES, batch_of, of_case

PLAIN = CASES["plain"]


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of their distinct storages."""
    stored = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in stored}.values())


def gradients_of(engine: Any) -> Iterator[torch.Tensor]:
    """What holds gradients between the backward pass and the step."""
    zero, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        yield zero.grad_partitions_flat_buffer
    elif stage == 2:
        for parts in zero.averaged_gradients.values():
            flat = getattr(parts, "flat_partition", None)
            yield from [flat] if flat is not None else parts
    else:
        yield from (p.grad for p in engine.module.parameters() if p.grad is not None)


def allocated(engine: Engine, step: Callable[[], object]) -> dict[str, int]:
    """Bytes that an engine holds after a step; of gradients, before it."""
    inner, found = engine._engine, dict[str, int]()
    plain = inner.step

    def watched() -> None:
        found["gradients"] = bytes_of(gradients_of(inner))
        plain()

    inner.step = watched
    step()
    weights = (getattr(p, "ds_tensor", p.data) for p in inner.module.parameters())
    found["weights"] = bytes_of(weights)
    states = engine._basic_optimizer().state.values()
    moments = (state[key] for state in states for key in ("exp_avg", "exp_avg_sq"))
    masters = engine._fragments.masters() if engine._fragments.stage else []
    found["optimizer"] = bytes_of([*masters, *moments])
    if engine._averages:
        found["averages"] = bytes_of(engine._averages.values())
    return found


NAMES = ("zero1_fp32", "zero1_bf16", "zero2_bf16", "zero3_bf16", "stage 0")


def json_of(name: str) -> dict[str, Any]:
    shipped = "zero1_fp32" if name == "stage 0" else name
    config = read_deepspeed_config(find_deepspeed_config(Path(shipped)))
    config["train_batch_size"] = 16
    zero = config["zero_optimization"]
    if name == "stage 0":
        config["zero_optimization"] = {"stage": 0}
    elif zero["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 0
    return resolve(config, Path(name), world_size(), 10)


def parts_are_what_is_allocated(folder: Path) -> None:
    batch = batch_of(folder, 0, rank(), world_size())
    for name in NAMES:
        deepspeed, clip = json_of(name), load_model(ModelConfig(), seed=0)
        clip.freeze("image")
        parameters = count_parameters(clip, persistent=0)
        engine = Engine(clip, clip.parameter_groups(), deepspeed)
        engine.average(0.5, {})
        step = partial(grad_cache.step, engine, batch, partial(of_case, PLAIN, batch), seed=0)
        found = allocated(engine, step)
        for part in state_parts(parameters, deepspeed, world_size(), averages=1):
            error = found[part.name] / part.bytes - 1
            # Parameters begin at multiples of some bytes, and parts are equal on all ranks.
            assert 0 <= error < 0.01, f"{name}, {part.name}: {found[part.name]} of {part.bytes}"
        engine.close()


@pytest.mark.parametrize("ranks", [1, 2])
def test_weights_gradients_and_optimizer_state_are_what_deepspeed_allocates(
    ranks: int, run_on_ranks: Callable[..., None], scene_shards: Path
) -> None:
    run_on_ranks(ranks, parts_are_what_is_allocated, scene_shards / "train")


def saved_of_step(clip: Clip, images: int, token_TL: torch.Tensor) -> float:
    """Bytes of activations of a whole batch, counted at once."""
    own = {p.untyped_storage().data_ptr() for p in (*clip.parameters(), *clip.buffers())}
    stored: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage
        return tensor

    size = clip.image_settings.size
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        kept = [
            clip.encode_images(torch.zeros(images, 3, size, size, dtype=torch.uint8)),
            clip.encode_texts(token_TL),
        ]
    found = sum(storage.nbytes() for at, storage in stored.items() if at not in own)
    assert kept
    return float(found)


@pytest.mark.parametrize("model", ["tiny", "tiny-rn"])
def test_activations_of_a_batch_follow_from_one_image_and_a_token(model: str) -> None:
    clip = load_model(ModelConfig(model=model), seed=0)
    token_TL = clip.tokenize([costs.ASSUMED_CAPTION, "a red star"])
    used = measure_activations(clip, token_TL, checkpointing=False)
    many_TL = token_TL.repeat(6, 1)
    tokens = float(clip.computed_tokens(many_TL).sum())
    assert used.bytes(16, tokens) == pytest.approx(saved_of_step(clip, 16, many_TL), rel=0.02)
    assert (used.image_flops, used.token_flops) == forward_cost(clip)


def test_a_frozen_tower_has_no_activations_and_checkpointing_fewer() -> None:
    clip = load_model(ModelConfig(), seed=0)
    token_TL = clip.tokenize([costs.ASSUMED_CAPTION])
    whole = measure_activations(clip, token_TL, checkpointing=False)
    less = measure_activations(clip, token_TL, checkpointing=True)
    assert less.image.each < 0.5 * whole.image.each
    assert less.token.each < 0.6 * whole.token.each
    clip.freeze("image")
    assert measure_activations(clip, token_TL, checkpointing=False).image.each == 0


def test_the_speed_of_a_measured_model_is_the_measured_one() -> None:
    for known in costs.MEASURED:
        assert costs.nearest_speed(known.flops) == known
        assert known.rate() / (3 * known.flops) == pytest.approx(known.images_per_second)
    assert costs.nearest_speed(1e6) is None


@pytest.fixture
def arguments(scene_shards: Path, tmp_path: Path) -> list[str]:
    return [
        *("--dry_run", "--shards", str(scene_shards / "train"), "--run", str(tmp_path / "run")),
        *("--batch_size", "32"),
    ]


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    return [re.sub(" +", " ", line) for line in lines]


def test_a_dry_run_prints_what_the_run_then_has_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--epochs 1.5 --images_per_second 2 --ema 0.9".split()
    lines = printed([*arguments, *flags], capsys)
    assert list(tmp_path.iterdir()) == []
    parameters = sum(p.numel() for p in load_model(ModelConfig(), seed=0).parameters())
    memory = parameters * 4 / 2**20  # fp32
    texts = r"text \d\.\d captions an image, \d+ tokens, counted in the shards"
    assert lines[0].startswith("train: --deepspeed_config cpu, as there is no GPU")
    assert lines[1] == "train: dry run of tiny on 1 GPU with cpu; nothing is written"
    assert lines[2] == "parameters 1.2 M, 1.2 M of them train"
    assert lines[3] == "batch 32 images of all GPUs, 32 on each in 1 micro-batch"
    assert re.fullmatch(texts, lines[4])
    assert lines[5:11] == [
        "length 5 steps, 1.67 epochs of 96 images",
        "memory of the GPU",
        f" weights {memory:.1f} MiB fp32",
        f" gradients {memory:.1f} MiB fp32",
        f" optimizer {3 * memory:.1f} MiB fp32 weights and 2 moments",
        f" averages {memory:.1f} MiB --ema or l2_sp, fp32",
    ]
    assert re.match(r" activations +\d+\.\d MiB estimate: \d\.\d MiB an image, ", lines[11])
    assert lines[12].endswith(f"without {costs.NOT_COUNTED}")
    assert lines[13] == "time 0.02 hours at 2 images/s; as given"
    same = [argument for argument in arguments if argument != "--dry_run"]
    assert main([*same, "--epochs", "1.5"]) == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["settings"]["steps"] == 5
    assert record["settings"]["plan"]["dry_run"] is False


@pytest.mark.slow
def test_a_plan_is_of_gpus_images_and_weights_that_are_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = (
        "--dry_run --model ViT-B-32 --pretrained openai --deepspeed_config zero2_bf16 --epochs 3"
    )
    lines = printed([*flags.split(), *"--dry_run_gpus 8 --dry_run_images 74942".split()], capsys)
    assert list(tmp_path.iterdir()) == []
    assert lines[:6] == [
        "train: dry run of ViT-B-32 on 8 GPUs with zero2_bf16; nothing is written",
        "parameters 151.3 M, 151.3 M of them train",
        "batch 256 images of all GPUs, 32 on each in 1 micro-batch",
        "text 4.8 captions an image, 116 tokens, assumed",
        "length 879 steps, 3.00 epochs of 74,942 images",
        "memory of each GPU",
    ]
    weights = 151_277_313
    assert lines[6] == f" weights {weights * 2 / 2**30:.2f} GiB bf16"
    assert lines[7] == f" gradients {weights / 8 * 4 / 2**20:.1f} MiB fp32, 1 of 8 parts"
    assert lines[8].startswith(f" optimizer {weights / 8 * 12 / 2**30:.2f} GiB fp32 weights and")
    assert re.match(r"time 0\.0\d hours at 1\d,\d{3} images/s; estimate: ", lines[-2])


def test_the_model_of_a_plan_has_the_activation_of_its_weights_and_none_of_them() -> None:
    openai = without_weights(ModelConfig(model="ViT-B-32", pretrained="openai"))
    assert openai == ModelConfig(model="ViT-B-32", force_quick_gelu=True)
    laion = without_weights(ModelConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k"))
    assert laion == ModelConfig(model="ViT-B-32")
    folder = ModelConfig(model="local-dir:folder")
    assert without_weights(folder) == folder


def test_offloaded_optimizer_state_is_in_host_memory_and_not_in_the_sum() -> None:
    clip = load_model(ModelConfig(), seed=0)
    path = find_deepspeed_config(Path("zero2_bf16_offload"))
    deepspeed = resolve(read_deepspeed_config(path), path, 8, 10)
    parts = state_parts(count_parameters(clip), deepspeed, 8)
    assert [part.name for part in parts if part.on_host] == ["optimizer"]


def test_settings_that_exclude_each_other_are_refused_in_a_dry_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--dry_run_gpus", "5"]) == 2
    assert "train_batch_size 32 does not divide by 5 ranks; 30 would" in capsys.readouterr().err
    with pytest.raises(Exception, match="images_per_second is 0"):
        replace(TrainConfig().plan, dry_run=True, images_per_second=0.0)
