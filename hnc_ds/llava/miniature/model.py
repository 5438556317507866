"""A LLaVA folder of a few megabytes: transformers' own classes, a tokenizer made here.

Its tower has the shape of a CLIP of this project, with weights that are still to be put in
('hnc-ds export --into').
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hnc_ds.llava.prompts import IMAGE, prompt
from hnc_ds.shards.images import ImageSettings

START, END, PAD = "<s>", "</s>", "<pad>"


def make_tokenizer(texts: Iterable[str], size: int = 512) -> Any:
    """Byte pairs, as LLaVA's is; every prompt begins with <s>.

    Args:
        texts: What it is made from, beside the prompt's own words.
        size: Most tokens.
    """
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[START, END, PAD, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*texts, *[prompt("")] * 100], trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, made.token_to_id(START))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=START, eos_token=END, pad_token=PAD
    )


def make_llava(
    tower: dict[str, Any], tokenizer: Any, *, width: int, layers: int, heads: int, seed: int
) -> Any:
    """A LlavaForConditionalGeneration with random weights.

    Args:
        tower: model_cfg of an open_clip model with a ViT.
        tokenizer: As ``make_tokenizer`` makes it.
        width: Of the language model.
        layers: Of the language model.
        heads: Of the language model.
        seed: Of the weights.
    """
    import transformers

    vision = tower["vision_cfg"]
    side, patch = vision["image_size"], vision["patch_size"]
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=vision["width"],
            intermediate_size=round(vision["width"] * vision.get("mlp_ratio", 4)),
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["width"] // vision.get("head_width", 64),
            image_size=side,
            patch_size=patch,
            projection_dim=tower["embed_dim"],
            hidden_act="quick_gelu" if tower.get("quick_gelu") else "gelu",
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=1024,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(side // patch) ** 2,
    )
    torch.manual_seed(seed)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save_llava(folder: Path, model: Any, tokenizer: Any, view: ImageSettings) -> None:
    """Write a folder that ``load_llava`` opens.

    Args:
        folder: New, or one that is written again.
        model: As ``make_llava`` makes it.
        tokenizer: Of the model.
        view: Of the tower's pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": view.size, "width": view.size}
    processor = {
        "image_processor_type": "LlavaImageProcessor",
        "size": {"shortest_edge": view.size},
        "crop_size": side,
        "image_mean": list(view.mean),
        "image_std": list(view.std),
        "do_pad": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
