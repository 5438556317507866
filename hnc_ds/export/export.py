"""Export a model in open_clip's or Hugging Face's layout, or put its tower into a LLaVA.

    hnc-ds export runs/first --to open_clip --out models/first
    hnc-ds export runs/first --to hf --out models/first-hf
    hnc-ds export runs/first --into llava-1.5-7b-hf --out llava-1.5-7b-first

The exported model is compared with the original on the same images before anything is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hnc_ds.atomic_files import atomic_folder, writing
from hnc_ds.checkpoint import (
    AVERAGE_NAME,
    SETTINGS_NAME,
    CheckpointFiles,
    newest_checkpoint,
    write_files,
)
from hnc_ds.config import ExportConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import load_named_model
from hnc_ds.export.into_llava import LlavaFolder, check_fit, drift, read_llava_folder, write_into
from hnc_ds.export.llava_files import check_colours, differs_as_a_whole, load_tokenizer
from hnc_ds.export.original_llava import TOWER_FOLDER, loading_warning
from hnc_ds.export.tower import (
    BLOCK_OF,
    TOLERANCE,
    Tensors,
    as_seen,
    at_size,
    hf_states,
    hf_view,
    open_clip_states,
    probe_images,
    refuse_broken_states,
    refuse_difference,
    text_settings,
    text_weights,
    vision_settings,
    vision_weights,
)
from hnc_ds.installing import pip_install
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import WEIGHTS_NAME, load_folder
from hnc_ds.output_lock import only_writer

CAPTIONS = (
    "a photo of a cat",
    "The bus is on the road.",
    "two men, one of whom wears a hat; it's late!",
    "caf\u00e9 at 10:30 p.m. (closed)",
)
"""Captions that both libraries encode to verify an export."""


def write_open_clip(clip: Clip, images_B3RR: torch.Tensor, out: Path) -> str:
    """Write open_clip's local-dir layout.

    Args:
        clip: The model, on the CPU.
        images_B3RR: uint8 images for the comparison.
        out: Output folder; an existing one is replaced.

    Returns:
        A line on what was compared.

    Raises:
        UserError: The written model has other embeddings, or the disk is full.
    """
    state = {n: t.detach().cpu() for n, t in clip.state_by_open_clip_name().items()}
    with writing(out, errors=(OSError, SafetensorError)), atomic_folder(out) as folder:
        made = CheckpointFiles({WEIGHTS_NAME: state}, clip.config, {}, clip.text_files())
        write_files(folder, made, out)
        again = load_folder(folder)
        parts = [
            _apart(clip.encode_images(images_B3RR), again.encode_images(images_B3RR)),
            _apart(*(m.encode_texts(m.tokenize(list(CAPTIONS))) for m in (clip, again))),
        ]
        if max(parts) > 0:
            raise UserError(f"export: {out} gives other embeddings, by {max(parts):.1e}")
    return "embeddings of images and captions are the same bits"


def write_hf(clip: Clip, images_B3RR: torch.Tensor, out: Path) -> str:
    """Write Hugging Face's CLIPModel, image processor, and tokenizer where it is CLIP's own.

    Arguments and errors as ``write_open_clip``; a text tower that is not CLIP's is a UserError.
    """
    with writing(out), atomic_folder(out) as folder:
        model = _hf_model(clip)
        compared = _verify(clip, model, images_B3RR)
        model.save_pretrained(folder)
        hf_view(clip.image_settings).save_pretrained(folder)
        if write_tokenizer(clip, folder):
            same_ids(clip, folder, CAPTIONS)
            return f"{compared}; token ids are the same"
    return f"{compared}; no tokenizer, as the model's is not CLIP's own"


def _hf_model(clip: Clip) -> Any:
    from transformers import CLIPConfig, CLIPModel

    vision, image_projection = vision_weights(clip)
    text, text_projection = text_weights(clip)
    if image_projection is None or text_projection is None:
        raise UserError("export: a tower has no projection, which CLIPModel needs")
    config = CLIPConfig(
        vision_config={**vision_settings(clip), "projection_dim": image_projection.shape[1]},
        text_config={**text_settings(clip), "projection_dim": text_projection.shape[1]},
        projection_dim=text_projection.shape[1],
    )
    model = CLIPModel(config).eval()
    state = {f"vision_model.{name}": tensor for name, tensor in vision.items()}
    state |= {f"text_model.{name}": tensor for name, tensor in text.items()}
    state["visual_projection.weight"] = image_projection.detach().float().T.contiguous()
    state["text_projection.weight"] = text_projection.detach().float().T.contiguous()
    state["logit_scale"] = clip.state_by_open_clip_name()["logit_scale"].detach().float()
    model.load_state_dict(state)
    return model


@torch.inference_mode()
def _verify(clip: Clip, model: Any, images_B3RR: torch.Tensor) -> str:
    """Compare hidden states of images, and embeddings of images and captions."""
    pixels = as_seen(images_B3RR, clip.image_settings)
    weights, _ = vision_weights(clip)
    theirs = hf_states(vision_settings(clip), weights, pixels)
    apart = refuse_difference(open_clip_states(clip, pixels), theirs, "the image tower")
    token_TL = clip.tokenize(list(CAPTIONS))
    tokens = torch.nn.functional.pad(
        token_TL, (0, clip.tokenize.context_length - token_TL.shape[1])
    )
    known = _until_end(token_TL)
    mask = torch.nn.functional.pad(known, (0, tokens.shape[1] - known.shape[1]))
    of = {
        "images": (clip.encode_images(images_B3RR), model.get_image_features(pixels)),
        "captions": (clip.encode_texts(token_TL), model.get_text_features(tokens, mask)),
    }
    for what, (ours, found) in of.items():
        found = getattr(found, "pooler_output", found)
        found = torch.nn.functional.normalize(found, dim=-1)
        if not _apart(ours, found) <= TOLERANCE:
            raise UserError(f"export: embeddings of {what} differ by {_apart(ours, found):.1e}")
    return f"hidden states and embeddings agree to {apart:.0e} of their size"


def _until_end(token_TL: torch.Tensor) -> torch.Tensor:
    """Mask up to each text's end token, which has the highest id."""
    end_T = token_TL.argmax(dim=1, keepdim=True)
    return (torch.arange(token_TL.shape[1]) <= end_T).long()


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max().detach())


START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(clip: Clip, folder: Path) -> bool:
    """Write the tokenizer if the model's is CLIP's own; returns whether it was written."""
    from transformers import CLIPTokenizer

    known = clip.tokenize.byte_pairs()
    if known is None:
        return False
    words, merges = known
    vocabulary = {word: number for word, number in words.items() if number < len(words) - 2}
    vocabulary |= {START: len(words) - 2, END: len(words) - 1}
    tokenizer: Any = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=clip.tokenize.context_length,
    )
    tokenizer.save_pretrained(folder)
    return True


def same_ids(clip: Clip, folder: Path, captions: Sequence[str]) -> None:
    """Raise UserError if the written tokenizer gives other ids."""
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for caption in captions:
        row = clip.tokenize([caption])[0]
        ours = row[: int(row.argmax()) + 1].tolist()
        found = theirs(caption, truncation=True)["input_ids"]
        if ours != found:
            raise UserError(f"export: '{caption}' has ids {found} in place of {ours}")


UNCHANGED = 1e-7
"""Relative change of a weight that counts as no change."""

TINY = 1e-12


def export(config: ExportConfig) -> None:
    """Export a model, verify that it computes the same, and print what changed.

    Raises:
        UserError: The model or LLaVA folder does not exist, the tower does not fit or computes
            something else, or the output exists or cannot be written.
    """
    if config.out.exists() and not config.overwrite:
        raise UserError(f"--out {config.out}: exists; choose another place, or add --overwrite")
    _check_transformers(config)
    folder = None if config.into is None else read_llava_folder(config.into)
    reference = str(averaged(config.model)) if config.average else config.model
    clip = load_named_model(reference).model.eval()
    write = write_hf if config.to == "hf" else write_open_clip
    with only_writer(config.out):
        if folder is not None:
            _into(clip, folder, config)
        else:
            images_B3RR = probe_images(clip.image_settings, config.probe)
            print(f"{config.out}: {write(clip, images_B3RR, config.out)}")


def averaged(reference: str) -> Path:
    """The folder of a run's averaged weights. Raises UserError where there are none."""
    path = Path(reference)
    folder = newest_checkpoint(path) if (path / SETTINGS_NAME).is_file() else path
    if not (folder / AVERAGE_NAME).is_dir():
        raise UserError(f"{folder}: has no averaged weights; train with --ema, or leave --average")
    return folder / AVERAGE_NAME


def _check_transformers(config: ExportConfig) -> None:
    if config.to != "open_clip" and find_spec("transformers") is None:
        raise UserError(f"export: this needs transformers; {pip_install('llava')}")


def _into(clip: Clip, folder: LlavaFolder, config: ExportConfig) -> None:
    own, weights = vision_settings(clip), vision_weights(clip)[0]
    view, side = clip.image_settings, int(folder.vision["image_size"])
    settings, resized = own, own["image_size"] != side and side % own["patch_size"] == 0
    if resized:
        settings, weights = at_size(own, weights, side)
    check_fit(folder, settings, weights)
    if folder.named is None:
        check_colours(folder.path, view.mean, view.std)
    apart = _compared(clip, own, config.probe)
    view = replace(view, size=side)
    moved = _moved(folder, weights, as_seen(probe_images(view, config.probe), view))
    processor = write_into(folder, weights, view, config.out)
    _check_written(config.out, weights)
    print(
        f"{config.out}: {_written(folder, weights, settings)}\n"
        f"{processor}\n"
        f"same hidden states as the model's own, to {apart:.0e} of their size\n"
        f"{moved}"
    )
    if resized:
        print(
            f"warning: the tower was trained at {own['image_size']} pixels and sees {side} here, "
            "with interpolated positions; its features are not those that it was trained for, so "
            "train it at LLaVA's size, or re-align the connector (docs/llava.md)"
        )
    _print_next_steps(folder, config.out)


def _written(folder: LlavaFolder, tower: Tensors, settings: Mapping[str, Any]) -> str:
    """Where the new tower is in the output, and what stayed."""
    kind = f"({settings['hidden_act']}, {settings['image_size']} px)"
    if folder.named is None:
        return f"{len(tower)} tensors of the tower replaced {kind}, all else unchanged"
    inside = (
        f"{len(tower)} tensors of it replaced in the weight files"
        if folder.tower
        else "the weight files hold no tower"
    )
    return f"the tower is in {TOWER_FOLDER} {kind}; {inside}; all else unchanged"


def _print_next_steps(folder: LlavaFolder, out: Path) -> None:
    if folder.named is not None or folder.is_next:
        kind = "LLaVA-1.5" if folder.named is None else "LLaVA-1.5 in Hugging Face's layout"
        print(f"'hnc-ds answer' takes {kind} alone; evaluate this folder elsewhere (docs/llava.md)")
    if folder.named is not None:
        warning = loading_warning(out, folder.config)
    elif not folder.is_next:
        warning = differs_as_a_whole(*load_tokenizer(out, folder.config))
    else:
        return
    if warning:
        print(warning)


def _moved(folder: LlavaFolder, weights: Tensors, pixels_B3RR: torch.Tensor) -> str:
    """How far weights and features moved from those of the old tower, in lines."""
    before = folder.old_weights()
    if before is None:
        return (
            "the old tower's weights are not on this machine, so how far its features moved was "
            "not measured"
        )
    states, old = (hf_states(folder.vision, one, pixels_B3RR) for one in (weights, before))
    refuse_broken_states(old, f"the tower in {folder.path}")
    cosine, least, moved = drift(old[folder.layer], states[folder.layer])
    return (
        f"{_changes(before, weights, folder.layer)}\n"
        f"features of layer {folder.feature_layer} on {len(pixels_B3RR)} images: cosine with the "
        f"old ones {cosine:.4f} on average, {least:.4f} at least; moved by {moved:.1%}"
    )


def _compared(clip: Clip, settings: Mapping[str, Any], probe: Path | None) -> float:
    """Difference of the tower's hidden states from open_clip's, at its own size."""
    pixels = as_seen(probe_images(clip.image_settings, probe), clip.image_settings)
    states = hf_states(settings, vision_weights(clip)[0], pixels)
    return refuse_difference(open_clip_states(clip, pixels), states, "the tower in its new form")


def _check_written(out: Path, weights: Tensors) -> None:
    """Raise UserError unless the written folder holds the tower, to the folder's precision."""
    for written in read_llava_folder(out).towers():
        for name, tensor in weights.items():
            if not torch.allclose(written[name], tensor, rtol=1e-2, atol=1e-3):
                raise UserError(
                    f"{out}: {name} was written with other values; the disk may be failing"
                )


def _changes(before: Tensors, after: Tensors, layer: int) -> str:
    """Largest changes of the weights that affect the language model's input, and of the others."""
    seen, unseen = list[float](), list[float]()
    for name, tensor in after.items():
        size = max(float(tensor.norm()), float(before[name].norm()), TINY)
        change = float((tensor - before[name]).norm()) / size
        (seen if _is_seen(name, layer) else unseen).append(change)
    line = f"weights before layer {layer}: changed by {max(seen):.1%} at most"
    if max(seen) <= UNCHANGED:
        line = (
            f"warning: no weight before layer {layer} changed, so the language model's input is "
            "the same; train more than the last block"
        )
    return f"{line}; behind it, unseen: {max(unseen, default=0.0):.1%}"


def _is_seen(name: str, layer: int) -> bool:
    block = BLOCK_OF.match(name)
    if block is not None:
        return int(block[1]) < layer
    return not name.startswith("post_layernorm")
