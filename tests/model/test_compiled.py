"""Compiled blocks give what eager ones give, and are compiled once for all batches."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from hnc_ds import train
from hnc_ds.checkpoint import complete_checkpoints
from hnc_ds.config import ModelConfig, ScopeConfig
from hnc_ds.engine.deepspeed_config import find_deepspeed_config
from hnc_ds.errors import UserError
from hnc_ds.model import attention, compiled, text
from hnc_ds.model.attention import Packed
from hnc_ds.model.clip import Clip
from hnc_ds.model.compiled import check_compiler, compile_blocks, described
from hnc_ds.model.load import load_folder, load_model
from hnc_ds.model.scope import choose_scope

BATCHES = [
    ["a dog", "the cat is above the dog"],
    ["a", "two dogs and a cat on an old sofa in a house", "a red star"],
    ["a dog", "the star", "red", "green a"],
    ["a b c d e f g h i j", "b", "a dog is a dog is a dog is a dog is a dog", "c"],
]


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def learn(clip: Clip, captions: list[str]) -> dict[str, torch.Tensor]:
    """Embeddings, and gradients of some function of them."""
    clip.zero_grad()
    size = clip.image_settings.size
    images = torch.arange(2 * 3 * size * size).reshape(2, 3, size, size).remainder(251).byte()
    found = dict(zip(("images", "texts"), clip(images, clip.tokenize(captions)), strict=False))
    total = sum((rows * torch.linspace(-1, 1, len(rows[0]))).sum() for rows in found.values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    return found | {n: p.grad for n, p in clip.named_parameters() if p.grad is not None}


def assert_like(compiled: Clip, eager: Clip, captions: list[str]) -> None:
    found, expected = learn(compiled, captions), learn(eager, captions)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=name)


def graphs() -> int:
    assert not counters["graph_break"], counters["graph_break"]
    return int(counters["stats"]["unique_graphs"])


def plain(_: Clip) -> None:
    """Nothing is changed."""


def recomputing(clip: Clip) -> None:
    clip.towers.set_grad_checkpointing(True)


def low_rank(clip: Clip) -> None:
    choose_scope(clip, ScopeConfig(lora_rank=2))


@pytest.mark.parametrize(
    "change",
    [plain, *(pytest.param(change, marks=pytest.mark.slow) for change in (recomputing, low_rank))],
)
def test_compiled_blocks_learn_as_eager_ones_and_a_tower_is_compiled_once(
    change: Callable[[Clip], None],
) -> None:
    clip = load_model(ModelConfig(), seed=0).train()
    change(clip)
    eager, names = copy.deepcopy(clip), list(clip.state_dict())
    assert compile_blocks(clip, "aot_eager") == {"image": 4, "text": 2}
    for captions in BATCHES:
        assert_like(clip, eager, captions)
        assert graphs() == 2
    assert list(clip.state_dict()) == names


def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, captions: Packed) -> torch.Tensor:
    """Attention over packed captions with the inputs of a device's kernel alone."""
    place_P = torch.arange(len(q))
    caption_P = torch.bucketize(place_P, captions.ends_T, right=True)
    seen_PP = (caption_P[:, None] == caption_P) & (place_P[:, None] >= place_P)
    q, k, v = (part.transpose(0, 1) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen_PP).transpose(0, 1)


@pytest.mark.slow
def test_packed_captions_are_compiled_once_where_a_kernel_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = load_model(ModelConfig(), seed=0).train()
    eager = copy.deepcopy(clip)
    compile_blocks(clip, "aot_eager")
    token_TL = clip.tokenize(BATCHES[0])
    assert clip.computed_tokens(token_TL).tolist() == [9, 9]  # a loop over lengths is not compiled
    monkeypatch.setattr(text, "varlen_attention", lambda *_: kernel)
    monkeypatch.setattr(text, "compiles_varlen", lambda *_: True)
    assert clip.computed_tokens(token_TL).tolist() == [4, 9]
    for captions in BATCHES:
        assert_like(clip, eager, captions)
        assert graphs() == 2


def test_a_kernel_that_cannot_be_compiled_leaves_captions_trimmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(*inputs: Any) -> torch.Tensor:
        if torch.compiler.is_compiling():
            raise NotImplementedError
        return kernel(*inputs)

    device = torch.device("cpu")
    for found, works in ((kernel, True), (cut, False), (None, False)):
        monkeypatch.setattr(attention, "varlen_attention", lambda *_, found=found: found)
        attention.compiles_varlen.cache_clear()
        with monkeypatch.context() as eagerly:
            compile_of = partial(torch.compile, backend="eager")
            eagerly.setattr(torch, "compile", compile_of)
            assert attention.compiles_varlen(device, torch.bfloat16) == works
    attention.compiles_varlen.cache_clear()


@pytest.mark.slow
def test_the_reference_model_is_compiled_and_embeds_as_before() -> None:
    clip = load_model(ModelConfig(), seed=0).train()
    clip.keep_reference()
    eager = copy.deepcopy(clip)
    assert compile_blocks(clip, "eager") == {"image": 8, "text": 4}
    assert clip.reference is not None
    assert clip.reference.is_compiled
    images = torch.zeros((2, 3, 32, 32), dtype=torch.uint8)
    token_TL = clip.tokenize(BATCHES[1])
    for found, expected in zip(clip(images, token_TL), eager(images, token_TL), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert graphs() == 4  # with gradients and without


@pytest.mark.slow
def test_a_tower_without_transformer_blocks_is_left_as_it_is() -> None:
    clip = load_model(ModelConfig(model="tiny-rn"), seed=0).eval()
    eager = copy.deepcopy(clip)
    blocks = compile_blocks(clip)  # inductor, as training does
    assert blocks == {"text": 2}
    assert described(blocks) == "compiles 2 blocks of the text tower in the first step"
    assert described({}).startswith("nothing is compiled")
    assert_like(clip, eager, BATCHES[0])
    assert graphs() == 1


def test_where_torch_cannot_compile_a_line_names_what_is_needed() -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("g++: not found\nand a long trace")

    with pytest.raises(UserError) as refused:
        check_compiler(torch.device("cpu"), fails)
    line = str(refused.value)
    assert "\n" not in line
    assert "g++: not found" in line
    assert "train without --compile" in line
    check_compiler(torch.device("cpu"), "eager")


@pytest.mark.slow
def test_a_run_with_compile_logs_what_it_compiles_and_writes_checkpoints_as_any_other(
    scene_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("check_compiler", "compile_blocks"):
        monkeypatch.setattr(train, name, partial(getattr(compiled, name), backend="eager"))
    config = json.loads(find_deepspeed_config(Path("cpu")).read_text())
    (tmp_path / "small.json").write_text(json.dumps(config | {"train_batch_size": 8}))
    flags = ["--shards", str(scene_shards / "train"), "--steps", "2", "--workers", "0"]
    flags += ["--deepspeed_config", str(tmp_path / "small.json")]
    assert train.main([*flags, "--run", str(tmp_path / "eager")]) == 0
    assert train.main([*flags, "--run", str(tmp_path / "compiled"), "--compile"]) == 0
    line = "train: compiles 4 blocks of the image tower and 2 blocks of the text tower"
    assert capsys.readouterr().out.count(line) == 1
    assert graphs() > 1
    runs = [complete_checkpoints(tmp_path / name)[-1] for name in ("eager", "compiled")]
    eager, found = (load_folder(run).state_by_open_clip_name() for run in runs)
    assert found.keys() == eager.keys()
    for name, weight in eager.items():
        torch.testing.assert_close(found[name], weight, atol=1e-4, rtol=1e-3, msg=name)
