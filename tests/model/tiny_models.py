"""Every kind of open_clip configuration, tiny, as a folder in open_clip's local-dir layout.

A kind starts from one of open_clip's configurations and keeps its keys; widths, layers, resolution
and vocabulary are small. Towers of timm keep their names, and get small sizes from ``small_timm``.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import open_clip
import open_clip.timm_model
import pytest
import torch
from safetensors.torch import save_file

from hnc_ds.model.load import initialize_caption_head
from tests.model.hugging_face import save_tokenizer

SIZES = {"embed_dim": 32, "num_heads": 2, "depth": 2}
TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_siglip_224": {**SIZES, "img_size": 32},
    "vit_base_patch16_siglip_384": {**SIZES, "img_size": 32},
    "eva02_base_patch16_clip_224": {**SIZES, "img_size": 32},
    "eva_giant_patch14_224": {**SIZES, "img_size": 28},
    "vit_pe_core_tiny_patch16_384": {**SIZES, "img_size": 32},
    "convnext_base": {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)},
    "fastvit_mci1": {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32)},
    "fastvit_mci3": {"layers": (1, 1, 1, 1, 1), "embed_dims": (16, 16, 32, 32, 32)},
    "naflexvit_base_patch16_siglip": SIZES,
    "vitamin_small_224": {"depth": 1, "img_size": 32},
    "swin_base_patch4_window7_224": {
        **{"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "img_size": 32, "window_size": 4}
    },
    "vit_relpos_medium_patch16_cls_224": {**SIZES, "img_size": 32},
}
"""What makes a timm model small."""


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Kind(NamedTuple):
    """A kind of configuration."""

    of: str
    """open_clip's configuration."""
    vision: Mapping[str, Any] = NOTHING
    text: Mapping[str, Any] = NOTHING
    model: Mapping[str, Any] = NOTHING
    """Changes to it; None removes a key."""
    tokenizer: str | None = None
    """Kind of Hugging Face tokenizer, if it is not CLIP's."""
    tower: tuple[str, dict[str, Any]] | None = None
    """transformers' name and sizes of a Hugging Face text tower."""
    view: Mapping[str, Any] = NOTHING
    """Preprocessing other than open_clip's default."""
    normalizes: bool = False
    """Whether it has batch normalization."""
    hf: bool = False
    """Whether it has a form of Hugging Face's CLIPModel."""


BERT_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT_SIZES |= {"intermediate_size": 64, "max_position_embeddings": 80}
T5_SIZES = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
M2M_SIZES = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2}
M2M_SIZES |= {"encoder_ffn_dim": 64, "decoder_layers": 1, "max_position_embeddings": 80}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}

KINDS = {
    "CLIP": Kind("ViT-B-32", hf=True),
    "QuickGELU": Kind("ViT-B-32-quickgelu", hf=True),
    "ResNet": Kind("RN50", normalizes=True),
    "CustomText": Kind("ViT-B-32", model={"custom_text": True}),
    "CLIPA": Kind("ViT-L-14-CLIPA", tokenizer="BERT"),
    "worldwide": Kind("ViT-H-14-worldwide", tokenizer="XLM-R"),
    "SigLIP": Kind("ViT-B-16-SigLIP", tokenizer="SigLIP", view=HALF),
    "SigLIP 2": Kind("ViT-B-16-SigLIP2", tokenizer="SigLIP", view=HALF),
    "PE-Core": Kind("PE-Core-T-16-384", view=HALF),
    "MobileCLIP": Kind("MobileCLIP-S1", vision={"image_size": 64}, normalizes=True),
    "MobileCLIP 2": Kind("MobileCLIP2-S3", vision={"image_size": 64}, normalizes=True),
    "ConvNeXt": Kind("convnext_base_w"),
    "ViTamin": Kind("ViTamin-S"),
    "Swin": Kind("swin_base_patch4_window7_224"),
    "relative positions": Kind("vit_relpos_medium_patch16_cls_224"),
    "EVA01": Kind("EVA01-g-14", vision={"image_size": 28}),
    "EVA02": Kind("EVA02-B-16"),
    "CoCa": Kind("coca_ViT-B-32"),
    "CoCa without a caption head": Kind(
        "coca_ViT-B-32",
        vision={"output_tokens": None},
        text={"output_tokens": None},
        model={"multimodal_cfg": None},
    ),
    "CoCa, RoBERTa": Kind(
        "coca_roberta-ViT-B-32", tokenizer="XLM-R", tower=("roberta", BERT_SIZES)
    ),
    "XLM-R": Kind(
        "xlm-roberta-base-ViT-B-32", tokenizer="XLM-R", tower=("xlm-roberta", BERT_SIZES)
    ),
    "mT5": Kind("mt5-base-ViT-B-32", tokenizer="T5", tower=("mt5", T5_SIZES)),
    "NLLB": Kind("nllb-clip-base-siglip", tokenizer="XLM-R", tower=("m2m_100", M2M_SIZES)),
    "timm and BERT": Kind(
        "xlm-roberta-base-ViT-B-32",
        vision={"timm_model_name": "test_efficientnet", "timm_pool": "avg", "image_size": 64},
        tokenizer="BERT",
        tower=("bert", BERT_SIZES),
        normalizes=True,
    ),
    "NaFlex": Kind(
        "ViT-B-16-SigLIP2",
        vision={"timm_model_name": "naflexvit_base_patch16_siglip"},
        tokenizer="SigLIP",
        view=HALF,
    ),
}


def small_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make open_clip's timm models small."""
    timm: Any = open_clip.timm_model.timm
    create = timm.create_model

    def create_small(name: str, **settings: Any) -> Any:
        return create(name, **settings, **TIMM.get(name, {}))

    monkeypatch.setattr(timm, "create_model", create_small)


def tiny_config(kind: Kind, source: Path) -> dict[str, Any]:
    """The model_cfg of a kind.

    Args:
        kind: The kind.
        source: Folder of the tokenizer and of the Hugging Face text tower's configuration.
    """
    config: dict[str, Any] = open_clip.get_model_config(kind.of)
    config["embed_dim"] = 32
    vision, text = config["vision_cfg"], config["text_cfg"]
    vision["image_size"] = 32
    if "patch_size" in vision:
        rn = isinstance(vision["layers"], list)
        vision |= {"layers": [1] * 4, "width": 8} if rn else {"layers": 2, "width": 32}
        vision |= {} if rn else {"head_width": 16, "patch_size": 16}
        vision |= {"attn_pooler_heads": 2} if "attn_pooler_heads" in vision else {}
    for part in (text, config.get("multimodal_cfg", {})):
        part |= {name: 2 for name in ("layers", "heads", "attn_pooler_heads") if name in part}
        part |= {"width": 32} if "width" in part else {}
    if kind.tokenizer:
        ids = save_tokenizer(source, kind.tokenizer)
        text["hf_tokenizer_name"] = str(source)
        text |= {"vocab_size": ids} if "vocab_size" in text or not kind.tower else {}
    if kind.tower:
        text["hf_model_name"] = str(source)
        _save_tower_config(source, *kind.tower, ids)
    for part, changes in ((vision, kind.vision), (text, kind.text), (config, kind.model)):
        _change(part, changes)
    return config


def _change(part: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        part[name] = value
        if value is None:
            del part[name]


def _save_tower_config(folder: Path, name: str, sizes: dict[str, Any], ids: int) -> None:
    from transformers import AutoConfig

    padding = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    pad = next(padding[token] for token in ("<pad>", "[PAD]", "</s>") if token in padding)
    made = AutoConfig.for_model(name, vocab_size=ids, pad_token_id=pad, **sizes)
    made.save_pretrained(folder)


def save_tiny(folder: Path, kind: Kind) -> Path:
    """A kind's folder, with random weights; the tokenizer and the text tower's configuration lie in
    ``folder.with_name(folder.name + "-text")`` as well."""
    source = folder.with_name(f"{folder.name}-text")
    config = tiny_config(kind, source)
    folder.mkdir(parents=True)
    if kind.tokenizer:
        save_tokenizer(folder, kind.tokenizer)
    written = {"model_cfg": config, "preprocess_cfg": {**kind.view}}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(1)
    towers = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    initialize_caption_head(towers)
    save_file(deepcopy(dict(towers.state_dict())), folder / "open_clip_model.safetensors")
    return folder
