"""A model as a folder in open_clip's and in Hugging Face's layout, each compared with the model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hnc_ds.checkpoint import Contents, write_files
from hnc_ds.errors import UserError
from hnc_ds.export.parity import (
    TOLERANCE,
    as_seen,
    hf_states,
    open_clip_states,
    refuse_difference,
)
from hnc_ds.export.tokenizer import same_ids, write_tokenizer
from hnc_ds.export.tower import (
    text_settings,
    text_weights,
    vision_settings,
    vision_weights,
)
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import WEIGHTS_NAME, load_folder
from hnc_ds.whole_files import whole_folder

CAPTIONS = (
    "a photo of a cat",
    "The bus is on the road.",
    "two men, one of whom wears a hat; it's late!",
    "caf\u00e9 at 10:30 p.m. (closed)",
)
"""That both libraries encode when an export is proven."""


def write_open_clip(clip: Clip, images_B3RR: torch.Tensor, out: Path) -> str:
    """open_clip's local-dir layout.

    Args:
        clip: The model, on the CPU.
        images_B3RR: uint8 pictures to compare by.
        out: The folder; what is there is replaced.

    Returns:
        What was compared, in words.

    Raises:
        UserError: The folder's model gives other embeddings; the disk is full.
    """
    state = {n: t.detach().cpu() for n, t in clip.state_by_open_clip_name().items()}
    try:
        with whole_folder(out) as folder:
            made = Contents({WEIGHTS_NAME: state}, clip.config, {}, clip.text_files())
            write_files(folder, made, out)
            again = load_folder(folder)
            parts = [
                _apart(clip.encode_images(images_B3RR), again.encode_images(images_B3RR)),
                _apart(*(m.encode_texts(m.tokenize(list(CAPTIONS))) for m in (clip, again))),
            ]
            if max(parts) > 0:
                raise UserError(f"export: {out} gives other embeddings, by {max(parts):.1e}")
    except (OSError, SafetensorError) as error:
        raise _cannot_write(out, error) from error
    return "embeddings of pictures and captions are the same bits"


def write_hf(clip: Clip, images_B3RR: torch.Tensor, out: Path) -> str:
    """Hugging Face's CLIPModel, its view of pictures, and its tokenizer where it is CLIP's own.

    Args and errors as ``write_open_clip``; a text tower that is not CLIP's own is a UserError.
    """
    try:
        with whole_folder(out) as folder:
            model = _hf_model(clip)
            told = _prove(clip, model, images_B3RR)
            model.save_pretrained(folder)
            _hf_view(clip).save_pretrained(folder)
            if write_tokenizer(clip, folder):
                same_ids(clip, folder, CAPTIONS)
                return f"{told}; token ids are the same"
    except OSError as error:
        raise _cannot_write(out, error) from error
    return f"{told}; no tokenizer, as the model's is not CLIP's own"


def _cannot_write(out: Path, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or error
    return UserError(f"{out}: cannot be written ({why}); make room, or choose another --out")


def _hf_model(clip: Clip) -> Any:
    from transformers import CLIPConfig, CLIPModel

    vision, picture_projection = vision_weights(clip)
    text, text_projection = text_weights(clip)
    if picture_projection is None or text_projection is None:
        raise UserError("export: a tower has no projection, which CLIPModel needs")
    config = CLIPConfig(
        vision_config={**vision_settings(clip), "projection_dim": picture_projection.shape[1]},
        text_config={**text_settings(clip), "projection_dim": text_projection.shape[1]},
        projection_dim=text_projection.shape[1],
    )
    model = CLIPModel(config).eval()
    state = {f"vision_model.{name}": tensor for name, tensor in vision.items()}
    state |= {f"text_model.{name}": tensor for name, tensor in text.items()}
    state["visual_projection.weight"] = picture_projection.detach().float().T.contiguous()
    state["text_projection.weight"] = text_projection.detach().float().T.contiguous()
    state["logit_scale"] = clip.state_by_open_clip_name()["logit_scale"].detach().float()
    model.load_state_dict(state)
    return model


@torch.inference_mode()
def _prove(clip: Clip, model: Any, images_B3RR: torch.Tensor) -> str:
    """Compare hidden states of pictures, and embeddings of both sides."""
    pixels = as_seen(images_B3RR, clip.image_settings)
    weights, _ = vision_weights(clip)
    theirs = hf_states(vision_settings(clip), weights, pixels)
    apart = refuse_difference(open_clip_states(clip, pixels), theirs, "the picture tower")
    token_TL = clip.tokenize(list(CAPTIONS))
    tokens = torch.nn.functional.pad(
        token_TL, (0, clip.tokenize.context_length - token_TL.shape[1])
    )
    known = _until_end(token_TL)
    mask = torch.nn.functional.pad(known, (0, tokens.shape[1] - known.shape[1]))
    of = {
        "pictures": (clip.encode_images(images_B3RR), model.get_image_features(pixels)),
        "captions": (clip.encode_texts(token_TL), model.get_text_features(tokens, mask)),
    }
    for what, (ours, found) in of.items():
        found = getattr(found, "pooler_output", found)
        found = torch.nn.functional.normalize(found, dim=-1)
        if not _apart(ours, found) <= TOLERANCE:
            raise UserError(f"export: embeddings of {what} differ by {_apart(ours, found):.1e}")
    return f"hidden states and embeddings agree to {apart:.0e} of their size"


def _until_end(token_TL: torch.Tensor) -> torch.Tensor:
    """Mask up to the end of each text, which has the highest id."""
    end_T = token_TL.argmax(dim=1, keepdim=True)
    return (torch.arange(token_TL.shape[1]) <= end_T).long()


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max().detach())


RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""PIL's numbers."""


def _hf_view(clip: Clip) -> Any:
    from transformers import CLIPImageProcessor

    view = clip.image_settings
    side = {"height": view.size, "width": view.size}
    shortest = {"shortest_edge": view.size}
    return CLIPImageProcessor(
        size=shortest if view.resize_mode == "shortest" else side,
        crop_size=side,
        resample=RESAMPLE[view.interpolation],
        image_mean=list(view.mean),
        image_std=list(view.std),
    )
