"""Small models with a Hugging Face tokenizer, all local, with random weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

WORDS = (
    "a the red blue green yellow star ring cross box triangle circle square is are there left "
    "right above below of to on and both two dogs cat . old sofa"
)
KINDS: dict[str, tuple[list[str], str | None, str, str]] = {
    # special tokens by their number, start, end, padding
    "XLM-R": (["<s>", "<pad>", "</s>", "<unk>"], "<s>", "</s>", "<pad>"),
    "SigLIP": (["<unk>", "</s>"], None, "</s>", "</s>"),
    "BERT": (["[PAD]", "[CLS]", "[SEP]", "<unk>"], "[CLS]", "[SEP]", "[PAD]"),
    "T5": (["<pad>", "</s>", "<unk>"], None, "</s>", "<pad>"),
}


def save_tokenizer(folder: Path, kind: str) -> int:
    """A tokenizer of words with the special tokens of a kind; how many ids it has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, start, end, padding = KINDS[kind]
    ids = {word: number for number, word in enumerate([*special, *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    framed = f"{start} $A {end}" if start else f"$A {end}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=framed, special_tokens=[(name, ids[name]) for name in (start, end) if name]
    )
    named: dict[str, Any] = {"sep_token": end, "cls_token": start, "bos_token": start}
    if kind != "BERT":
        named["eos_token"] = end
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=padding, unk_token="<unk>", **named
    )
    made.save_pretrained(folder)
    return len(ids)


def save_text_tower(folder: Path, vocabulary: int) -> None:
    """A text tower of XLM-R's kind, with its configuration."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=80,
        pad_token_id=1,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    torch.manual_seed(0)
    XLMRobertaModel(config).save_pretrained(folder)


def save_clip(folder: Path, kind: str = "XLM-R", context: int = 20) -> Path:
    """A CLIP in open_clip's local-dir layout, whose text parts lie in a folder of their own.

    Of XLM-R's kind also the tower is Hugging Face's; the others have CLIP's.

    Returns:
        The CLIP's folder, with the tokenizer as open_clip wants it there; the text parts lie in
        ``folder.with_name(folder.name + "-text")``.
    """
    source = folder.with_name(f"{folder.name}-text")
    vocabulary = save_tokenizer(source, kind)
    text: dict[str, Any] = {
        "context_length": context,
        "vocab_size": vocabulary,
        "hf_tokenizer_name": str(source),
        "width": 32,
    }
    if kind == "XLM-R":
        save_text_tower(source, vocabulary)
        text |= {"hf_model_name": str(source), "hf_pooler_type": "mean_pooler"}
    else:
        text |= {"heads": 2, "layers": 1, "no_causal_mask": True, "pool_type": "last"}
        text |= {"tokenizer_kwargs": {"strip_sep_token": True}} if kind == "BERT" else {}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    model = {"embed_dim": 32, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    view = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    save_tokenizer(folder, kind)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": {**view, "resize_mode": "squash"}})
    )
    torch.manual_seed(1)
    towers = open_clip.create_model(f"local-dir:{folder}")
    save_file(towers.state_dict(), folder / "model.safetensors")
    return folder
