"""A tiny LLaVA folder with the files and settings of those on the hub, and its training.

Its tower has the shape of a CLIP of this project and random weights; 'hnc-ds export --into'
replaces them. Training changes connector and language model; the tower is frozen.

B questions, P tokens up to and with the image, L after it (question, answer, end), V words.
"""

import json
import random
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hnc_ds.llava.model import Llava
from hnc_ds.llava.questions import VqaQuestion
from hnc_ds.model.llava_prompt import IMAGE, prompt
from hnc_ds.shards.images import ImageSettings

UNKNOWN, START, END, PAD = "<unk>", "<s>", "</s>", "<pad>"
STEPS = ("convert_rgb", "resize", "center_crop", "rescale", "normalize")
BLANK = "\u2581"
"""SentencePiece's mark of a blank."""


def make_tokenizer(texts: Iterable[str], size: int = 640) -> Any:
    """A tokenizer like Llama's: BPE with a blank before each text, byte fallback, <s> first.

    Args:
        texts: Training texts, in addition to the prompt's words.
        size: Maximum size of the vocabulary.
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
    """Vocabulary and merges like SentencePiece's for Llama: no merges across words, line breaks
    as bytes."""
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
        tokenizer: From ``make_tokenizer``.
        width: Width of the language model.
        layers: Layers of the language model.
        heads: Attention heads of the language model.
        seed: Seed for the weights.
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
        folder: Output folder; existing JSON files are updated.
        model: From ``make_llava``.
        tokenizer: The model's tokenizer.
        view: Preprocessing of the tower's images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in _hub_files(view, model.config).items():
        path = folder / name
        before = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps(before | content, indent=2))


def _hub_files(view: ImageSettings, config: Any) -> dict[str, dict[str, Any]]:
    """Contents of llava-1.5-7b-hf's files, with this tower's sizes."""
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


NO_LABEL = -100


class TrainingExample(NamedTuple):
    """A question and its answer."""

    question: VqaQuestion
    folder: Path
    """Folder of its image."""
    answer: str


class TrainSettings(NamedTuple):
    steps: int
    batch: int
    rate: float
    """Peak learning rate; warm-up takes a twentieth of the steps."""
    seed: int


def fine_tune(
    llava: Llava, examples: Sequence[TrainingExample], settings: TrainSettings
) -> list[float]:
    """Train in place; returns the loss of every step."""
    model = llava.model
    model.model.vision_tower.requires_grad_(False)
    features = _features(llava, examples)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.steps, pct_start=0.05
    )
    draw, losses = random.Random(settings.seed), list[float]()
    for _ in tqdm(range(settings.steps), "training LLaVA", unit="step", disable=None):
        drawn = [examples[draw.randrange(len(examples))] for _ in range(settings.batch)]
        loss = _loss(llava, drawn, features)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def _features(llava: Llava, examples: Sequence[TrainingExample]) -> dict[Path, torch.Tensor]:
    """Input of the connector for each image, computed once."""
    paths = list(dict.fromkeys(one.folder / one.question.image for one in examples))
    found: dict[Path, torch.Tensor] = {}
    for start in tqdm(range(0, len(paths), 256), "images", unit="batch", disable=None):
        some = paths[start : start + 256]
        pixels = torch.stack([llava.view(path) for path in some])
        found |= dict(zip(some, tower_features(llava.model, pixels), strict=True))
    return found


@torch.no_grad()
def tower_features(model: Any, pixels_B3RR: torch.Tensor) -> torch.Tensor:
    """Input of the connector [B, P, W]: hidden states of the patches at the configuration's layer.

    Args:
        model: transformers' LLaVA.
        pixels_B3RR: Preprocessed images.
    """
    config = model.config
    states = model.model.vision_tower(pixels_B3RR, output_hidden_states=True).hidden_states
    hidden: torch.Tensor = states[config.vision_feature_layer]
    return hidden[:, 1:] if config.vision_feature_select_strategy == "default" else hidden


def _loss(
    llava: Llava, drawn: Sequence[TrainingExample], features: dict[Path, torch.Tensor]
) -> torch.Tensor:
    end = min(llava.stop_ids)
    prompts = [llava.split_prompt(one.question.text) for one in drawn]
    answers = [
        [*llava.tokenizer(one.answer, add_special_tokens=False)["input_ids"], end] for one in drawn
    ]
    seen = torch.stack([features[one.folder / one.question.image] for one in drawn])
    image_BPD = llava.model.model.multi_modal_projector(seen)
    after = [after for _, after in prompts]
    return loss_after_image(llava.model, prompts[0][0], image_BPD, after, answers)


def loss_after_image(
    model: Any,
    before: Sequence[int],
    image_BPD: torch.Tensor,
    after: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Mean cross-entropy of the tokens that follow images and questions.

    Args:
        model: transformers' LLaVA.
        before: Token ids before each image.
        image_BPD: Output of the connector.
        after: Token ids between image and target, of each image.
        targets: Token ids to predict.
    """
    rows = [[*one, *target] for one, target in zip(after, targets, strict=True)]
    labels = [[NO_LABEL] * len(one) + [*target] for one, target in zip(after, targets, strict=True)]
    longest = max(map(len, rows))
    padded = [row + [0] * (longest - len(row)) for row in rows]
    unlabelled = [row + [NO_LABEL] * (longest - len(row)) for row in labels]
    make = partial(torch.tensor, dtype=torch.int64, device=image_BPD.device)
    ids_BL, label_BL, before_L = make(padded), make(unlabelled), make([list(before)])
    words = model.get_input_embeddings()
    before_BPD = words(before_L).expand(len(rows), -1, -1)
    whole_BLD = torch.cat([before_BPD, image_BPD, words(ids_BL)], dim=1)
    hidden = model.model.language_model(inputs_embeds=whole_BLD, use_cache=False)[0]
    # Logits at a position predict the next token; padding on the right follows all targets.
    logits_BLV = model.lm_head(hidden[:, -longest - 1 : -1])
    return cross_entropy(
        logits_BLV.flatten(0, 1).float(), label_BL.flatten(), ignore_index=NO_LABEL
    )
