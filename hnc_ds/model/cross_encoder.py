"""Image-text matching models of transformers: one logit for an image and a caption together.

A model is a folder of ``save_pretrained``, with its tokenizer and the preprocessing of images, or
an id of the Hugging Face hub, such as Salesforce/blip-itm-base-coco.

A cross-encoder has no embedding of a caption alone. But its image tower does not see the caption,
so an image is seen once, and each of its captions is matched with what was seen. The two steps
together give the logits of the model's own ``forward`` (tests/model/test_cross_encoder.py).

B images of R pixels, P pairs of n image tokens and L text tokens, width D.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from hnc_ds.errors import UserError
from hnc_ds.model.evidence import hugging_faces_view
from hnc_ds.reading import read_json, reading
from hnc_ds.shards.images import ImageSettings

Contrast = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]
"""What was seen [B, ...], token ids [T, L] and mask [T, L] to embeddings [B, D] and [T, D]."""

Draw = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Embeddings [B, D] and [T, D] to further captions of each image: token ids [B, M, L] and tokens
without padding [B, M]."""


class Kind(NamedTuple):
    """An architecture."""

    class_name: str
    """In transformers."""
    see: Callable[[Any, torch.Tensor], torch.Tensor]
    """Normalized pixels [B, 3, R, R] to what captions are matched with: [B, n, D], or of
    BridgeTower [B, layers, n, D]."""
    match: Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """What was seen [P, ...], token ids [P, L] and their mask [P, L] to the logits of the model:
    [P, 2] for no match and match, or [P, 1]."""
    heads: tuple[str, ...]
    """Modules that a model without image-text matching lacks."""
    size: Callable[[Any], int]
    """Pixels on a side of its images, from the configuration."""
    contrast: Contrast | None = None
    """Embeddings by its contrastive heads, before they are normalized; None if the class has none,
    or compares several vectors of an image."""
    unused_positions: int = 0
    """Positions of the text tower that no token has."""
    trains: bool = True
    """Whether training takes it."""


def _see_blip(model: Any, pixels_B3RR: torch.Tensor) -> torch.Tensor:
    return model.vision_model(pixel_values=pixels_B3RR).last_hidden_state


def _match_blip(
    model: Any, seen_PnD: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
) -> torch.Tensor:
    found = model.text_encoder(
        input_ids=token_PL,
        attention_mask=mask_PL,
        encoder_hidden_states=seen_PnD,
        encoder_attention_mask=_ones(seen_PnD),
    )
    return model.itm_head(found.last_hidden_state[:, 0])


def _contrast_blip(
    model: Any, seen_BnD: torch.Tensor, token_TL: torch.Tensor, mask_TL: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    alone = model.text_encoder(input_ids=token_TL, attention_mask=mask_TL).last_hidden_state
    return model.vision_proj(seen_BnD[:, 0]), model.text_proj(alone[:, 0])


def _match_blip2(
    model: Any, seen_PnD: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
) -> torch.Tensor:
    queries = model.query_tokens.expand(len(seen_PnD), -1, -1)
    found = model.qformer(
        query_embeds=model.embeddings(input_ids=token_PL, query_embeds=queries),
        query_length=queries.shape[1],
        attention_mask=torch.cat([_ones(queries), mask_PL], dim=1),
        encoder_hidden_states=seen_PnD,
        encoder_attention_mask=_ones(seen_PnD),
    )
    of_queries = found.last_hidden_state[:, : queries.shape[1]]
    return model.itm_head(of_queries.to(model.itm_head.weight.dtype)).mean(dim=1)


def _see_vilt(model: Any, pixels_B3RR: torch.Tensor) -> torch.Tensor:
    """Patches of a whole square image in their order; ViLT's own code shuffles them."""
    embeddings = model.vilt.embeddings
    patches = embeddings.patch_embeddings(pixels_B3RR)
    side = model.config.image_size // model.config.patch_size
    own = embeddings.position_embeddings
    places = own[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    places = nn.functional.interpolate(
        places, size=patches.shape[2:], mode="bilinear", align_corners=True
    )
    patches = patches.flatten(2).transpose(1, 2) + places.flatten(2).transpose(1, 2)
    first = (embeddings.cls_token + own[:, :1]).expand(len(patches), -1, -1)
    return embeddings.dropout(torch.cat([first, patches], dim=1))


def _match_vilt(
    model: Any, seen_PnD: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
) -> torch.Tensor:
    return model(
        input_ids=token_PL,
        attention_mask=mask_PL,
        image_embeds=seen_PnD,
        pixel_mask=_ones(seen_PnD),
    ).logits


def _see_bridgetower(model: Any, pixels_B3RR: torch.Tensor) -> torch.Tensor:
    """What each layer of the fusion takes from the image tower."""
    visual = model.bridgetower.vision_model.visual
    state = visual.forward_pre(pixels_B3RR)
    seen = []
    for block in visual.transformer.resblocks:
        state = block(state)
        seen.append(visual.forward_post(state))
    fused = model.config.num_hidden_layers
    return torch.stack(seen[len(seen) - fused :], dim=1)


def _match_bridgetower(
    model: Any, seen_PKnD: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
) -> torch.Tensor:
    """``BridgeTowerModel.forward`` behind its image tower."""
    tower = model.bridgetower
    state = tower.text_model.embeddings(input_ids=token_PL)
    mask = create_bidirectional_mask(
        config=model.config, inputs_embeds=state[:, :1], attention_mask=mask_PL
    )
    layers = tower.text_model.encoder.layer
    fused = model.config.num_hidden_layers
    of_text, of_image = tower.token_type_embeddings.weight[:2]
    text = image = None
    for number, layer in enumerate(layers):
        state = layer(state, mask)
        place = number - (len(layers) - fused)
        if place < 0:
            continue
        own_text = tower._apply_text_transform(state, place) + of_text
        own_image = tower._apply_image_transform(seen_PKnD[:, place], place) + of_image
        if text is None:
            text = tower.cross_modal_text_layernorm(own_text)
            image = tower.cross_modal_image_layernorm(own_image)
        else:
            text = tower.cross_modal_text_link_tower[place - 1](own_text, text, mask)
            image = tower.cross_modal_image_link_tower[place - 1](own_image, image, None)
        text, image = (
            tower.cross_modal_text_layers[place](text, image, attention_mask=mask)[0],
            tower.cross_modal_image_layers[place](image, text, encoder_attention_mask=mask)[0],
        )
    return model.itm_score(tower.get_cls_features(text, image))


def _see_flava(model: Any, pixels_B3RR: torch.Tensor) -> torch.Tensor:
    found = model.flava.image_model(pixel_values=pixels_B3RR, output_hidden_states=True)
    return found.hidden_states[-1]


def _contrast_flava(
    model: Any, seen_BnD: torch.Tensor, token_TL: torch.Tensor, mask_TL: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    flava = model.flava
    image_BD = flava.image_model.layernorm(seen_BnD[:, 0])
    text_TD = flava.text_model(input_ids=token_TL, attention_mask=mask_TL).last_hidden_state[:, 0]
    return flava.image_projection(image_BD), flava.text_projection(text_TD)


def _match_flava(
    model: Any, seen_PnD: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
) -> torch.Tensor:
    flava = model.flava
    found = flava.text_model(input_ids=token_PL, attention_mask=mask_PL, output_hidden_states=True)
    text = flava.text_to_mm_projection(found.hidden_states[-1])
    mask = torch.cat([_ones(seen_PnD), mask_PL], dim=1)
    if flava.multimodal_model.use_cls_token:
        mask = torch.cat([mask[:, :1], mask], dim=1)
    both = torch.cat([flava.image_to_mm_projection(seen_PnD), text], dim=1)
    return model.itm_head(flava.multimodal_model(both, attention_mask=mask).last_hidden_state)


def _ones(rows: torch.Tensor) -> torch.Tensor:
    """A mask of all tokens of rows [P, n, D]."""
    return torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)


KINDS: Mapping[str, Kind] = {
    "blip": Kind(
        "BlipForImageTextRetrieval",
        _see_blip,
        _match_blip,
        ("itm_head",),
        lambda config: config.vision_config.image_size,
        _contrast_blip,
    ),
    "blip-2": Kind(
        "Blip2ForImageTextRetrieval",
        _see_blip,
        _match_blip2,
        ("itm_head",),
        lambda config: config.vision_config.image_size,
    ),
    "vilt": Kind(
        "ViltForImageAndTextRetrieval",
        _see_vilt,
        _match_vilt,
        ("rank_output",),
        lambda config: config.image_size,
    ),
    "bridgetower": Kind(
        "BridgeTowerForImageAndTextRetrieval",
        _see_bridgetower,
        _match_bridgetower,
        ("itm_score",),
        lambda config: config.vision_config.image_size,
        unused_positions=2,
    ),
    "flava": Kind(
        "FlavaForPreTraining",
        _see_flava,
        _match_flava,
        ("itm_head",),
        lambda config: config.image_config.image_size,
        _contrast_flava,
    ),
    "llava": Kind(  # LlavaJudge has steps of its own
        "LlavaForConditionalGeneration",
        lambda model, pixels: pixels,
        lambda model, seen, tokens, mask: tokens,
        (),
        lambda config: config.vision_config.image_size,
        trains=False,
    ),
}
"""THE TABLE of architectures, by model_type of config.json. LXMERT and VisualBERT, which the HNC
paper has as well, take features of detected regions instead of images."""


class CaptionTokenizer:
    """Captions to token ids. Without weights, so that it can be sent to workers.

    Args:
        tokenizer: Of transformers.
        context_length: Tokens of the longest caption that the model takes.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self.context_length = context_length
        self.tokenizer = tokenizer

    @property
    def padding(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id or 0)

    def ids(self, captions: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each caption, and whether it is truncated at the context length."""
        if not captions:
            return [], []
        whole = self.tokenizer(list(captions), verbose=False)["input_ids"]
        is_long = [len(ids) > self.context_length for ids in whole]
        if any(is_long):
            cut = self.tokenizer(list(captions), truncation=True, max_length=self.context_length)
            return cut["input_ids"], is_long
        return whole, is_long

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """int64 [T, L], padded to the longest caption."""
        rows, _ = self.ids(captions)
        length = max(map(len, rows), default=0)
        padded = [[*row, *[self.padding] * (length - len(row))] for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), length)

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        """Tokens of each caption without padding, [T]."""
        place_L = torch.arange(1, token_TL.shape[1] + 1, device=token_TL.device)
        return ((token_TL != self.padding) * place_L).amax(dim=1)


class CrossEncoder(nn.Module):
    """An image-text matching model with its tokenizer and preprocessing.

    Args:
        towers: A model of a class in KINDS; named as in Clip.
        kind: Its record.
        tokenizer: Of its text tower.
        image_settings: Its preprocessing of images.
        preprocessing: The file that has it, by name.
    """

    config = None
    """Of open_clip."""
    low_rank_scale: float | None = None
    reference = None

    def __init__(
        self,
        towers: nn.Module,
        kind: Kind,
        tokenizer: Any,
        image_settings: ImageSettings,
        preprocessing: Mapping[str, bytes],
    ) -> None:
        super().__init__()
        self.towers: Any = towers
        self.image_settings = image_settings
        context = _context_length(towers, tokenizer, kind.unused_positions)
        self.tokenize = CaptionTokenizer(tokenizer, context)
        self.random_weights: tuple[str, ...] = ()
        """Names of the head's parameters that the folder lacked."""
        self.scalars: tuple[str, ...] = ()
        """Names of the parameters that are numbers in the model's file."""
        self._kind = kind
        self._preprocessing = preprocessing
        self._files: dict[str, bytes] | None = None
        self._statistics: dict[torch.device, torch.Tensor] = {}

    def see(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """What captions are matched with, of uint8 images of the model's size: [B, ..., D]."""
        return self._kind.see(self.towers, self.pixels(images_B3RR))

    def pixels(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Normalized pixels in the model's dtype."""
        if images_B3RR.device not in self._statistics:
            values = self.image_settings.mean, self.image_settings.std
            with torch.inference_mode(False):  # it may train later
                made = torch.tensor(values, device=images_B3RR.device).view(2, 1, 3, 1, 1)
            self._statistics[images_B3RR.device] = made
        mean, std = self._statistics[images_B3RR.device]
        pixels_B3RR = (images_B3RR.float() / 255 - mean) / std
        return pixels_B3RR.to(next(self.towers.parameters()).dtype)

    def match(
        self, seen_P: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds of a match, float32 [P]; P(match) is their sigmoid.

        Args:
            seen_P: Rows of ``see``, one for each caption.
            token_PL: int64, padded.
            mask_PL: int64, 0 for padding.
        """
        logits = self._kind.match(self.towers, seen_P, token_PL, mask_PL).float()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    def forward(
        self,
        images_B3RR: torch.Tensor,
        token_TL: torch.Tensor,
        used_T: torch.Tensor,
        caption_BS: torch.Tensor,
        contrasts: bool = False,
        draw: Draw | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Log-odds of each image with S captions, and M that are drawn; the image is seen once.

        Args:
            images_B3RR: uint8.
            token_TL: Result of ``tokenize``.
            used_T: int64: tokens of each caption without padding.
            caption_BS: Rows of token_TL.
            contrasts: Return embeddings too.
            draw: Chooses the M captions by embeddings.

        Returns:
            Log-odds [B, S + M]; with ``contrasts`` or ``draw``, unit-length embeddings [B, D] of
            the images and [T, D] of the captions.
        """
        seen_B = self.see(images_B3RR)
        used_T = used_T.to(token_TL.device)
        embeddings: tuple[torch.Tensor, ...] = ()
        token_BSL, used_BS = token_TL[caption_BS], used_T[caption_BS]
        if contrasts or draw:
            embeddings = self.contrast(seen_B, token_TL, _mask(used_T, token_TL.shape[1]))
        if draw:
            drawn_BML, drawn_BM = draw(*embeddings)
            length = max(token_BSL.shape[2], drawn_BML.shape[2])
            both = (self._padded(tokens, length) for tokens in (token_BSL, drawn_BML))
            token_BSL, used_BS = torch.cat([*both], dim=1), torch.cat([used_BS, drawn_BM], dim=1)
        captions, length = token_BSL.shape[1:]
        seen_P = seen_B.repeat_interleave(captions, dim=0)
        odds_P = self.match(seen_P, token_BSL.flatten(0, 1), _mask(used_BS.flatten(), length))
        return odds_P.view(len(seen_B), captions), *embeddings

    def contrast(
        self, seen_B: torch.Tensor, token_TL: torch.Tensor, mask_TL: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Unit-length embeddings by the contrastive heads, float32: [B, D] and [T, D].

        Args:
            seen_B: Result of ``see``.
            token_TL: int64, padded.
            mask_TL: int64, 0 for padding.
        """
        assert self._kind.contrast is not None
        found = self._kind.contrast(self.towers, seen_B, token_TL, mask_TL)
        return tuple(nn.functional.normalize(rows.float(), dim=-1) for rows in found)

    def _padded(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        missing = length - tokens.shape[-1]
        return nn.functional.pad(tokens, (0, missing), value=self.tokenize.padding)

    def prepare_for_training(self, contrasts: bool = False) -> None:
        """Freeze parameters without a gradient (of other heads), and give numbers one dimension, as
        DeepSpeed needs it. Gradients are found out with a black image and an empty caption.

        Args:
            contrasts: Its contrastive heads train too.

        Raises:
            UserError: It is no model that trains, or has no contrastive heads.
        """
        if contrasts and self._kind.contrast is None:
            able = ", ".join(name for name, kind in KINDS.items() if kind.contrast)
            raise UserError(
                f"{self._kind.class_name} has no embeddings of images and captions, which terms "
                f"other than itm and match_margin, and --mined_negatives, need; {able} have"
            )
        if not self._kind.trains:
            raise UserError(
                f"{self._kind.class_name} judges captions ('hnc-ds evaluate'), and is not trained"
            )
        self.scalars = tuple(n for n, p in self.towers.named_parameters() if p.ndim == 0)
        for parameter in self.towers.parameters():
            if parameter.ndim == 0:
                parameter.data = parameter.data.view(1)
        side = self.image_settings.size
        token_TL = self.tokenize([""])
        used_T = self.tokenize.used_tokens(token_TL).clamp(min=1)
        images_B3RR = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        first = torch.zeros(1, 1, dtype=torch.int64)
        found = self.eval()(images_B3RR, token_TL, used_T, first, contrasts)
        torch.cat([part.flatten() for part in found]).sum().backward()
        for parameter in self.towers.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None

    def has_batch_statistics(self) -> bool:
        """Whether a layer in training mode normalizes over the batch; none does."""
        return False

    def computed_tokens(
        self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens that are computed for each caption, with padding: int64 [T]."""
        length = token_TL.shape[1]
        return torch.full((len(token_TL),), length) if used_T is None else used_T * 0 + length

    def start_note(self) -> str | None:
        """A message on weights that training starts from; None if there is nothing to say."""
        if not self.random_weights:
            return None
        return (
            f"{self.random_weights[0]} and the rest of the head for image-text matching have "
            "random weights, as the folder has none"
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: no weight decay for gains and biases."""
        trained = [p for p in self.parameters() if p.requires_grad]
        plain, matrices = ([p for p in trained if (p.ndim < 2) == is_plain] for is_plain in (1, 0))
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": plain, "weight_decay": 0}]
        return [group for group in groups if group["params"]]

    def text_files(self) -> dict[str, bytes]:
        """Configuration, tokenizer and preprocessing, by name: with the weights, a folder that
        ``from_pretrained`` opens; cached."""
        if self._files is None:
            with tempfile.TemporaryDirectory() as folder:
                self.towers.config.architectures = [self._kind.class_name]
                self.towers.config.save_pretrained(folder)
                self.tokenize.tokenizer.save_pretrained(folder)
                written = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
            self._files = {**written, **self._preprocessing}
        return self._files


def _mask(used_P: torch.Tensor, length: int) -> torch.Tensor:
    """int64 [P, L]: 1 for the first tokens of each row."""
    return (torch.arange(length, device=used_P.device) < used_P[:, None]).long()


def load_cross_encoder(name: str, may_lack_head: bool = False) -> CrossEncoder:
    """Load a model of the hub or of a folder, in float32 on the CPU.

    Args:
        name: The folder, or an id of the hub.
        may_lack_head: Take random weights for a missing head for image-text matching.

    Raises:
        UserError: No such folder or id, files are missing or broken, the architecture is none of
            KINDS, or its weights have no head for image-text matching.
    """
    folder = _folder(name)
    kind, config = _kind_of(folder)
    preprocessing, settings = _image_settings(folder, kind.size(config))
    again = "copy the folder again"
    with reading(folder, again, "not a tokenizer", by="transformers"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with reading(folder, again, "not a model", by="transformers"), _quiet():
        model, found = getattr(transformers, kind.class_name).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(found["missing_keys"])
    headless = [weight for weight in missing if weight.startswith(kind.heads)]
    if headless and not may_lack_head:
        raise UserError(
            f"{name}: has no weights of {headless[0]}, the head for image-text matching; take "
            f"a model that was trained as {kind.class_name}"
        )
    lost = [weight for weight in missing if weight not in headless]
    lost += [weight for weight, *_ in found["mismatched_keys"]]
    if lost:
        raise UserError(f"{folder}: has no weights of {lost[0]}; {again}")
    parts = model.eval(), kind, tokenizer, settings, preprocessing
    encoder = CrossEncoder(*parts)
    if config.model_type == "llava":
        from hnc_ds.model.llava_judge import LlavaJudge  # a CrossEncoder

        encoder = LlavaJudge(*parts)
    encoder.random_weights = tuple(headless)
    return encoder


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/")) or name.count("/") > 1 or not name:
        raise UserError(f"{name}: no such folder; give a folder of save_pretrained")
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]
    advice = "give a folder, or an id of the hub"
    with reading(name, advice, "not a model of the hub", by="huggingface_hub"):
        return Path(snapshot_download(name, allow_patterns=files))


def _kind_of(folder: Path) -> tuple[Kind, Any]:
    """The record and the configuration of a folder's model."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; give a folder of save_pretrained")
    with reading(folder / "config.json", "copy the folder again", by="transformers"):
        config = transformers.AutoConfig.from_pretrained(folder)
    if config.model_type not in KINDS:
        raise UserError(
            f"{folder}: model_type is {config.model_type!r}; image-text matching is known of "
            f"{', '.join(KINDS)}"
        )
    return KINDS[config.model_type], config


def _image_settings(folder: Path, size: int) -> tuple[dict[str, bytes], ImageSettings]:
    """The file with the preprocessing, and what it says, but that every image becomes a square:
    ViLT and BridgeTower were also trained on rectangles."""
    file, settings = _preprocessing(folder)
    found = hugging_faces_view(settings)
    return {file.name: file.read_bytes()}, ImageSettings(
        size=size,
        mean=found["mean"],
        std=found["std"],
        interpolation=found.get("interpolation", "bicubic"),
        resize_mode=found.get("resize_mode", "squash"),
    )


PREPROCESSING = (("preprocessor_config.json", None), ("processor_config.json", "image_processor"))
"""Files of the settings of images, and their key."""


def _preprocessing(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The file with the settings of the image processor, which newer folders have within the
    processor's, and these settings."""
    for name, key in PREPROCESSING:
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get(key) if key and isinstance(found, dict) else found
            if isinstance(found, dict):
                return folder / name, found
    raise UserError(
        f"{folder}: has no preprocessor_config.json, the preprocessing of images; save the "
        "processor into it too"
    )


def _context_length(model: Any, tokenizer: Any, unused: int) -> int:
    config = model.config
    for text in (getattr(config, name, None) for name in ("text_config", "qformer_config")):
        if positions := getattr(text, "max_position_embeddings", None):
            return int(min(positions - unused, tokenizer.model_max_length))
    return int(min(config.max_position_embeddings - unused, tokenizer.model_max_length))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report of loading, as missing weights are refused."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
