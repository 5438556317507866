"""Last blocks, LoRA and frozen towers where the towers are timm's or Hugging Face's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hnc_ds.config import ScopeConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_folder
from hnc_ds.model.scope import choose_scope, merged
from tests.model.tiny_models import KINDS, save_tiny, small_timm

CAPTIONS = ["the red star is above the blue ring .", "a"]
LAST = {
    # parameters of the last block and after it, by the beginning of their names
    "SigLIP": [
        *("visual.trunk.blocks.1.", "visual.trunk.norm.", "visual.trunk.attn_pool."),
        *("text.transformer.resblocks.1.", "text.ln_final.", "text.text_projection."),
    ],
    "EVA02": [
        *("visual.trunk.blocks.1.", "visual.trunk.norm.", "visual.trunk.head."),
        *("text.transformer.resblocks.1.", "text.ln_final.", "text.text_projection"),
    ],
    "PE-Core": [
        *("visual.trunk.blocks.1.", "visual.trunk.norm.", "visual.trunk.attn_pool."),
        *("visual.trunk.head.", "text.transformer.resblocks.1.", "text.ln_final."),
        "text.text_projection",
    ],
    "ConvNeXt": [
        *("visual.trunk.stages.3.blocks.0.", "visual.trunk.head.norm.", "visual.head.proj."),
        *("transformer.resblocks.1.", "ln_final.", "text_projection"),
    ],
    "MobileCLIP": [
        *("visual.trunk.stages.3.blocks.0.", "visual.trunk.final_conv.", "visual.trunk.head.fc."),
        *("text.transformer.resblocks.1.", "text.ln_final.", "text.text_projection"),
    ],
    "XLM-R": [
        *("visual.transformer.resblocks.1.", "visual.ln_post.", "visual.proj"),
        *("text.transformer.encoder.layer.1.", "text.proj."),
    ],
    "mT5": [
        *("visual.transformer.resblocks.1.", "visual.ln_post.", "visual.proj"),
        *("text.transformer.block.1.", "text.transformer.final_layer_norm.", "text.proj."),
    ],
    "NLLB": [
        *("visual.trunk.blocks.1.", "visual.trunk.norm.", "visual.trunk.attn_pool."),
        *("text.transformer.layers.1.", "text.transformer.layer_norm.", "text.proj."),
    ],
    "timm and BERT": [
        *("visual.trunk.blocks.4.0.", "visual.trunk.conv_head.", "visual.trunk.bn2."),
        *("visual.head.proj.", "text.transformer.encoder.layer.1.", "text.proj."),
    ],
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clip]:
    """Open a new model of a kind, in training mode."""
    folder = tmp_path_factory.mktemp("kinds")

    def open_(name: str) -> Clip:
        path: Path = folder / name
        return load_folder(path if path.is_dir() else save_tiny(path, KINDS[name])).train()

    return open_


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_timm(monkeypatch)


def embed(clip: Clip) -> torch.Tensor:
    side = clip.image_settings.size
    images = torch.arange(2 * 3 * side**2).reshape(2, 3, side, side).remainder(251).byte()
    image_BD, text_TD, *_ = clip(images, clip.tokenize(CAPTIONS))
    return torch.cat([image_BD, text_TD])


def trained(clip: Clip) -> set[str]:
    names = (name for name, p in clip.named_parameters() if p.requires_grad)
    return {name.removeprefix("towers.") for name in names} - {"logit_scale"}


def statistics(clip: Clip) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in clip.named_buffers()}


@pytest.mark.parametrize("name", LAST)
def test_the_last_block_trains_with_all_that_comes_after_it(
    name: str, opened: Callable[[str], Clip]
) -> None:
    clip = opened(name)
    choose_scope(clip, ScopeConfig(last_blocks=1))
    begins = tuple(LAST[name])
    names = trained(clip)
    expected = {n for n, _ in clip.towers.named_parameters() if n.startswith(begins)}
    assert names == expected
    assert all(any(n.startswith(begin) for n in names) for begin in begins)


@pytest.mark.parametrize("name", [name for name in LAST if name != "timm and BERT"])
def test_low_rank_adapters_begin_as_no_change_and_merge_into_a_plain_model(
    name: str, opened: Callable[[str], Clip]
) -> None:
    clip, plain = opened(name), opened(name).eval()
    choose_scope(clip, ScopeConfig(lora_rank=2, lora_alpha=4.0))
    torch.testing.assert_close(embed(clip.eval()), embed(plain))
    for tower in ("image", "text"):
        assert not clip.is_frozen(tower)
    with torch.no_grad():
        for parameter_name, parameter in clip.named_parameters():
            if parameter_name.endswith("up_Or"):
                parameter.normal_(std=0.3)
    weights = merged(dict(clip.named_parameters()), 2.0)
    before = embed(plain)
    plain.load_state_dict({**dict(plain.named_buffers()), **weights}, strict=False)
    assert {n for n, _ in plain.named_parameters()} == weights.keys()
    assert not torch.allclose(embed(plain), before, atol=1e-3)
    torch.testing.assert_close(embed(plain), embed(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["MobileCLIP", "timm and BERT"])
@pytest.mark.parametrize("scope", [{"towers": "text"}, {"lora_rank": 2}, {"last_blocks": 1}])
def test_a_frozen_batch_norm_keeps_its_statistics(
    name: str, scope: dict[str, object], opened: Callable[[str], Clip]
) -> None:
    clip = opened(name)
    if name == "timm and BERT" and "lora_rank" in scope:
        with pytest.raises(UserError, match="the image tower have no linear layers"):
            choose_scope(clip, ScopeConfig(**scope))  # type: ignore[arg-type]
        return
    choose_scope(clip, ScopeConfig(**scope))  # type: ignore[arg-type]
    before = statistics(clip)
    embed(clip)
    changed = {n for n, now in statistics(clip).items() if not torch.equal(now, before[n])}
    assert clip.has_batch_statistics() == bool(changed) == ("last_blocks" in scope)
    begins = tuple(f"towers.{begin}" for begin in LAST[name])
    assert all(buffer.startswith(begins) for buffer in changed)
