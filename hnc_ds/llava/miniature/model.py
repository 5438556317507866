"""A LLaVA folder of a few megabytes, with the files and settings of those on the hub.

Its tower has the shape of a CLIP of this project, with weights that are still to be put in
('hnc-ds export --into').
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from hnc_ds.export.llava_tokenizer import IMAGE
from hnc_ds.llava.prompts import prompt
from hnc_ds.shards.images import ImageSettings

UNKNOWN, START, END, PAD = "<unk>", "<s>", "</s>", "<pad>"
STEPS = ("convert_rgb", "resize", "center_crop", "rescale", "normalize")
BLANK = "\u2581"
"""What SentencePiece has in place of a blank."""


def make_tokenizer(texts: Iterable[str], size: int = 640) -> Any:
    """Llama's kind, in the form that the folders on the hub have: byte pairs with a blank before
    each text, bytes for what is unknown, and every prompt begins with <s>.

    Args:
        texts: What it is made from, beside the prompt's own words.
        size: Most tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = _byte_pairs([*texts, *[prompt("")] * 100], size - 2)
    made = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    start = (START, made.token_to_id(START))
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[start]
    )
    special = [AddedToken(token, normalized=False) for token in (UNKNOWN, START, END, IMAGE, PAD)]
    made.add_special_tokens(special)
    names = {"unk_token": UNKNOWN, "bos_token": START, "eos_token": END, "pad_token": PAD}
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **names)


def _byte_pairs(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as SentencePiece makes them for Llama: none across words, and line
    breaks are bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace(BLANK)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[UNKNOWN, START, END, *bytes_], show_progress=False
    )
    made.train_from_iterator((text.replace("\n", " ") for text in texts), trainer)
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [(first, second) for first, second in model["merges"]]


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
    for name, content in _hub_files(view, model.config).items():
        path = folder / name
        before = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps(before | content, indent=2))


def _hub_files(view: ImageSettings, config: Any) -> dict[str, dict[str, Any]]:
    """What llava-1.5-7b-hf has in these files; its images are cropped."""
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "processor_class": "LlavaProcessor",
            "image_token": IMAGE,
            "extra_special_tokens": {"image_token": IMAGE},
            "legacy": False,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": IMAGE,
            "num_additional_image_tokens": 1,
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "size": {"shortest_edge": view.size},
            "crop_size": {"height": view.size, "width": view.size},
            "image_mean": list(view.mean),
            "image_std": list(view.std),
            "resample": 3,
            "rescale_factor": 1 / 255,
            **{f"do_{step}": True for step in STEPS},
        },
    }
