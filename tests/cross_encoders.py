"""Small image-text matching models of every kind, with random weights, as folders."""

from pathlib import Path
from typing import Any

import torch
import transformers

from experiments.itm import word_tokenizer

SIDE, PATCH, WIDTH, WORDS, LONGEST = 32, 16, 64, 40, 32
"""Pixels of an image and of a patch, width of all layers, words of the vocabulary, tokens of a
caption."""

COMMON = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
TEXT = {**COMMON, "vocab_size": WORDS + 4, "max_position_embeddings": LONGEST}
IMAGE = {**COMMON, "image_size": SIDE, "patch_size": PATCH}


def _blip() -> Any:
    config = transformers.BlipConfig(
        text_config={**TEXT, "encoder_hidden_size": WIDTH, "pad_token_id": 0},
        vision_config=IMAGE,
        image_text_hidden_size=16,
        projection_dim=16,
    )
    return transformers.BlipForImageTextRetrieval(config)


def _blip2() -> Any:
    queries = {**TEXT, "encoder_hidden_size": WIDTH, "use_qformer_text_input": True}
    config = transformers.Blip2Config(
        vision_config=IMAGE,
        qformer_config={**queries, "cross_attention_frequency": 1},
        text_config={"model_type": "opt", "hidden_size": WIDTH, "num_hidden_layers": 1},
        num_query_tokens=3,
        image_text_hidden_size=16,
    )
    model = transformers.Blip2ForImageTextRetrieval(config)
    torch.nn.init.normal_(model.query_tokens)
    return model


def _vilt() -> Any:
    config = transformers.ViltConfig(**{**TEXT, **IMAGE}, type_vocab_size=2)
    return transformers.ViltForImageAndTextRetrieval(config)


def _bridgetower() -> Any:
    config = transformers.BridgeTowerConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        text_config={**TEXT, "num_hidden_layers": 3, "pad_token_id": 1},
        vision_config={**IMAGE, "num_hidden_layers": 4, "remove_last_layer": True},
    )
    return transformers.BridgeTowerForImageAndTextRetrieval(config)


def _flava() -> Any:
    config = transformers.FlavaConfig(
        image_config=IMAGE,
        text_config=TEXT,
        multimodal_config=COMMON,
        hidden_size=WIDTH,
        projection_dim=16,
        init_codebook=False,
    )
    return transformers.FlavaForPreTraining(config)


MADE = {
    "blip": _blip,
    "blip-2": _blip2,
    "vilt": _vilt,
    "bridgetower": _bridgetower,
    "flava": _flava,
}


def save_cross_encoder(folder: Path, kind: str, words: list[str], seed: int = 0) -> Path:
    """Write a folder of ``save_pretrained`` with tokenizer and preprocessing.

    Args:
        folder: Where to.
        kind: A key of MADE.
        words: At most WORDS.
        seed: Of the weights, whose deviation is large, so that captions differ in their scores.
    """
    torch.manual_seed(seed)
    model = MADE[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.eval().save_pretrained(folder)
    known = list(dict.fromkeys(map(str.lower, words)))[:WORDS]
    first = ("[CLS]", "[PAD]") if kind == "bridgetower" else ("[PAD]", "[CLS]")
    word_tokenizer(known, LONGEST, (*first, "[SEP]", "[UNK]")).save_pretrained(folder)
    transformers.BlipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
