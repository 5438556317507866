"""Text without padding: the embeddings and gradients of open_clip's own padded form."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from hnc_ds.config import ModelConfig, ScopeConfig
from hnc_ds.model import attention, text
from hnc_ds.model.attention import Packed, TowerAttention
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import CLIP_VOCABULARY, load_folder, load_model
from hnc_ds.model.scope import LowRank, choose_scope
from hnc_ds.model.text import packed_clip_text
from tests.model import hugging_face

CONTEXT = 20
CAPTIONS = ["a", "The red star is above the blue ring.", "There are two dogs and a cat.", "a dog"]
SETS = {
    "several lengths": CAPTIONS,
    "one caption": CAPTIONS[1:2],
    "one length": ["a", "dog", "cat"],
    "whole context and beyond": ["a dog " * 30, "the " * (CONTEXT - 2), "a"],
}


def make_folder(folder: Path, text: dict[str, object], **model: object) -> Path:
    """A small model in open_clip's local-dir layout, with random weights."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {"context_length": 20, "vocab_size": CLIP_VOCABULARY, "width": 32, "heads": 2}
        | {"layers": 2}
        | text,
    } | model
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    torch.manual_seed(1)
    towers = open_clip.create_model(f"local-dir:{folder}")
    save_file(towers.state_dict(), folder / "model.safetensors")
    return folder


def padded(folder: Path, captions: list[str]) -> torch.Tensor:
    return open_clip.get_tokenizer(f"local-dir:{folder}")(captions)


def learn(embed_TD: torch.Tensor, module: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of some function of the embeddings."""
    weights = torch.linspace(-1, 1, embed_TD.numel(), dtype=embed_TD.dtype).view_as(embed_TD)
    module.zero_grad()
    (embed_TD * weights).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_like_open_clip(clip: Clip, folder: Path, captions: list[str], **options: Any) -> None:
    reference = open_clip.create_model(f"local-dir:{folder}").double()
    clip.double()
    found = clip.encode_texts(clip.tokenize(captions))
    expected = reference.encode_text(padded(folder, captions), normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    ours, theirs = learn(found, clip.towers), learn(expected, reference)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-11, rtol=1e-9, msg=name)


@pytest.mark.parametrize("form", ["packed", "trimmed"])
@pytest.mark.parametrize("captions", SETS.values(), ids=SETS)
@pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])
def test_short_text_has_the_embeddings_and_gradients_of_padded_text(
    form: str,
    captions: list[str],
    custom: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_folder(tmp_path / "model", {}, custom_text=custom)
    if form == "trimmed":
        monkeypatch.setattr(text, "can_pack", lambda *_: False)
    clip = load_folder(folder)
    assert clip._text_form.packs
    assert_like_open_clip(clip, folder, captions)


def test_packed_text_can_be_computed_again_in_the_backward_pass(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", {})
    clip = load_folder(folder)
    clip.towers.set_grad_checkpointing(True)
    assert_like_open_clip(clip, folder, CAPTIONS)


def test_nothing_of_padding_is_computed(tmp_path: Path) -> None:
    clip = load_folder(make_folder(tmp_path / "model", {}))
    token_TL = clip.tokenize(CAPTIONS)
    rows: list[int] = []
    layer = clip.towers.transformer.resblocks[0].mlp.c_fc
    layer.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0][..., 0].numel()))
    clip.encode_texts(token_TL)
    tokens = sum(int((row != 0).sum()) for row in token_TL)  # 0 is padding
    assert rows == [tokens] == [int(clip.computed_tokens(token_TL).sum())]


@pytest.mark.parametrize(
    ("text", "model", "trims"),
    [
        ({}, {"custom_text": True}, True),
        ({"pool_type": "last", "no_causal_mask": True}, {"custom_text": True}, False),
    ],
)
def test_a_text_tower_is_shortened_only_if_that_changes_nothing(
    text: dict[str, object], model: dict[str, object], trims: bool, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "other", text, **model)
    clip = load_folder(folder)
    token_TL = clip.tokenize(CAPTIONS)
    assert (token_TL.shape[1] < CONTEXT) == trims
    assert (int(clip.computed_tokens(token_TL).sum()) < token_TL.numel()) == trims
    reference = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        expected = reference.encode_text(padded(folder, CAPTIONS), normalize=True)
        found = clip.encode_texts(token_TL)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_context_whose_lengths_bfloat16_cannot_hold_is_packed_as_any_other(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "long", {"context_length": 300})
    captions = ["a dog " * 140, "the " * 257, "a"]
    clip, reference = load_folder(folder), open_clip.create_model(f"local-dir:{folder}")
    token_TL = clip.tokenize(captions)
    assert clip.computed_tokens(token_TL).tolist() == [282, 259, 3]
    found = clip.bfloat16().encode_texts(token_TL)
    expected = reference.encode_text(padded(folder, captions), normalize=True)
    assert (found - expected).abs().max() < 0.05


def test_lengths_from_the_host_are_those_counted_from_the_tokens(tmp_path: Path) -> None:
    clip = load_folder(make_folder(tmp_path / "model", {}))
    token_TL, used_T = clip.tokenize(CAPTIONS), torch.tensor([3, 11, 10, 4])
    assert clip.encode_texts(token_TL).equal(clip.encode_texts(token_TL, used_T))
    assert clip.computed_tokens(token_TL, used_T).equal(clip.computed_tokens(token_TL))
    wider_TL = nn.functional.pad(token_TL, (0, 5))
    assert clip.tokenize.trimmed(wider_TL, used_T).equal(token_TL)
    assert clip.tokenize.trimmed(wider_TL).equal(token_TL)


def test_packed_text_in_bfloat16_is_as_near_as_padded_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", {})
    exact = open_clip.create_model(f"local-dir:{folder}").encode_text(
        padded(folder, CAPTIONS), normalize=True
    )
    clip = load_folder(folder).bfloat16()
    token_TL = clip.tokenize(CAPTIONS)
    own = (clip.encode_texts(token_TL) - exact).abs().max()
    other = (text.unit_rows(clip.towers.encode_text(padded(folder, CAPTIONS))) - exact).abs().max()
    assert own < 2 * other < 0.1


def test_low_rank_changes_act_on_packed_attention(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", {})
    clip = load_folder(folder)
    choose_scope(clip, ScopeConfig(towers="text", lora_rank=2))
    clip = copy.deepcopy(clip)  # as the start model is
    with torch.no_grad():
        for module in clip.modules():
            if isinstance(module, LowRank):
                module.up_Or.normal_(std=0.5)
    changed = clip.towers.transformer.resblocks[0].attn
    assert isinstance(changed, TowerAttention)
    assert parametrize.is_parametrized(changed, "in_proj_weight")
    found = clip.encode_texts(clip.tokenize(CAPTIONS))
    plain = open_clip.create_model(f"local-dir:{folder}")
    unchanged = plain.encode_text(padded(folder, CAPTIONS), normalize=True)
    expected = clip.towers.encode_text(padded(folder, CAPTIONS))  # a mask of two dimensions
    torch.testing.assert_close(found, text.unit_rows(expected), atol=1e-5, rtol=0)
    assert (found - unchanged).abs().max() > 0.01


def test_attention_in_groups_of_a_length_is_attention_one_by_one() -> None:
    draw = torch.Generator().manual_seed(0)
    captions = Packed([1, 3, 3, 4], torch.tensor([0, 1, 4, 7, 11], dtype=torch.int32))
    q, k, v = torch.randn((3, 11, 2, 8), generator=draw, dtype=torch.float64)
    found = attention.attend(q, k, v, captions)
    torch.testing.assert_close(found, attention._one_by_one(q, k, v, captions))


def test_a_kernel_that_is_wrong_is_detected() -> None:
    def not_causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, _: Any) -> torch.Tensor:
        parts = (part.transpose(0, 1) for part in (q, k, v))
        return nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1)

    device = torch.device("cpu")
    assert not attention._is_right(not_causal, device, torch.bfloat16)
    assert attention._is_right(attention._one_by_one, device, torch.bfloat16)
    with torch.inference_mode():  # as an evaluation, which may be the first use
        assert attention._is_right(attention._one_by_one, device, torch.bfloat16)


def test_checkpoint_names_and_the_tiny_model_stay_as_open_clip_has_them() -> None:
    clip = load_model(ModelConfig(), seed=0)
    plain = open_clip.create_model("tiny", nonscalar_logit_scale=True)
    assert clip.towers.state_dict().keys() == plain.state_dict().keys()
    used_T = torch.tensor([3])
    assert packed_clip_text(clip.towers, clip.tokenize(["a"]), used_T).shape == (1, 128)


@pytest.mark.parametrize("kind", hugging_face.KINDS)
def test_only_captions_beyond_the_context_are_cut_whatever_pads_them(
    kind: str, tmp_path: Path
) -> None:
    clip = load_folder(hugging_face.save_clip(tmp_path / "model", kind))
    framing = 1 if kind in ("SigLIP", "T5") else 2
    words = {"one": 1, "some": 7, "all": CONTEXT - framing, "one more": CONTEXT - framing + 1}
    cut = {name: clip.tokenize.is_too_long("star " * count) for name, count in words.items()}
    assert cut == {"one": False, "some": False, "all": False, "one more": True}


def test_a_hugging_face_tower_is_computed_without_its_padding(tmp_path: Path) -> None:
    folder = hugging_face.save_clip(tmp_path / "model", "XLM-R")
    clip = load_folder(folder)
    captions = ["sofa a", "the red star is above the blue ring .", "sofa a a a"]
    token_TL = clip.tokenize(captions)
    assert clip.tokenize.used_tokens(token_TL).tolist() == [4, 11, 6]
    assert token_TL.shape == (3, 11)
    assert_like_open_clip(clip, folder, captions)
