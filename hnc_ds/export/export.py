"""Write a trained model in another library's layout, or its tower into a LLaVA.

    hnc-ds export runs/first --to open_clip --out models/first
    hnc-ds export runs/first --to hf --out models/first-hf
    hnc-ds export runs/first --into llava-1.5-7b-hf --out llava-1.5-7b-first

Both layouts compute on the same pictures before anything is kept; what differs is refused.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

from hnc_ds.checkpoint import AVERAGE_NAME, SETTINGS_NAME, newest_checkpoint
from hnc_ds.config import ExportConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.models import load_end
from hnc_ds.export.folders import write_hf, write_open_clip
from hnc_ds.export.into_llava import (
    LlavaFolder,
    check_fit,
    drift,
    read_llava_folder,
    write_into,
)
from hnc_ds.export.llava_tokenizer import differs_as_a_whole, load_tokenizer
from hnc_ds.export.parity import (
    as_seen,
    hf_states,
    open_clip_states,
    probe_pictures,
    refuse_broken_states,
    refuse_difference,
)
from hnc_ds.export.processor import PADDING, check_colours
from hnc_ds.export.tower import BLOCK_OF, Tensors, vision_settings, vision_weights
from hnc_ds.model.clip import Clip
from hnc_ds.output_lock import only_writer

UNCHANGED = 1e-7
"""Relative change of a weight that counts as none."""

TINY = 1e-12


def export(config: ExportConfig) -> None:
    """Export a model, prove that it computes the same, and say what changed.

    Raises:
        UserError: No such model or LLaVA folder, a tower that does not fit or computes something
            else, an output that exists or cannot be written.
    """
    if config.out.exists() and not config.overwrite:
        raise UserError(f"--out {config.out}: exists; choose another place, or add --overwrite")
    _check_transformers(config)
    folder = None if config.into is None else read_llava_folder(config.into)
    reference = str(averaged(config.model)) if config.average else config.model
    clip = load_end(reference).model.eval()
    images_B3RR = probe_pictures(clip.image_settings, config.probe)
    with only_writer(config.out):
        if folder is not None:
            _into(clip, folder, images_B3RR, config.out)
        elif config.to == "hf":
            print(f"{config.out}: {write_hf(clip, images_B3RR, config.out)}")
        else:
            print(f"{config.out}: {write_open_clip(clip, images_B3RR, config.out)}")


def averaged(reference: str) -> Path:
    """The folder of a run's averaged weights.

    Raises:
        UserError: There are none.
    """
    path = Path(reference)
    folder = newest_checkpoint(path) if (path / SETTINGS_NAME).is_file() else path
    if not (folder / AVERAGE_NAME).is_dir():
        raise UserError(f"{folder}: has no averaged weights; train with --ema, or leave --average")
    return folder / AVERAGE_NAME


def _check_transformers(config: ExportConfig) -> None:
    if config.to != "open_clip" and find_spec("transformers") is None:
        raise UserError("export: this needs transformers; pip install 'hnc-ds[llava]'")


def _into(clip: Clip, folder: LlavaFolder, images_B3RR: torch.Tensor, out: Path) -> None:
    settings = vision_settings(clip)
    weights, _ = vision_weights(clip)
    check_fit(folder, settings, weights)
    check_colours(folder.path, clip.image_settings.mean, clip.image_settings.std)
    pixels = as_seen(images_B3RR, clip.image_settings)
    states = hf_states(folder.vision, weights, pixels)
    apart = refuse_difference(open_clip_states(clip, pixels), states, "the tower in its new form")
    before = folder.weights()
    old = hf_states(folder.vision, before, pixels)
    refuse_broken_states(old, f"the tower in {folder.path}")
    processor = write_into(folder, weights, out)
    _check_written(out, weights)
    cosine, least, moved = drift(old[folder.layer], states[folder.layer])
    print(
        f"{out}: {len(weights)} tensors of the tower replaced ({settings['hidden_act']}, "
        f"{settings['image_size']} px), all else as it was\n"
        f"images are padded to squares, as LLaVA-1.5 was trained ({PADDING} with do_pad; it was "
        f"{processor})\n"
        f"same hidden states as the model's own, to {apart:.0e} of their size\n"
        f"{_changes(before, weights, folder.layer)}\n"
        f"features of layer {folder.config.get('vision_feature_layer', -2)} on "
        f"{len(images_B3RR)} pictures: cosine with the old ones {cosine:.4f} on average, "
        f"{least:.4f} at least; moved by {moved:.1%}"
    )
    if warning := differs_as_a_whole(*load_tokenizer(out, folder.config)):
        print(warning)


def _check_written(out: Path, weights: Tensors) -> None:
    """What lies on the disk now is the tower, in the folder's own precision."""
    written = read_llava_folder(out).weights()
    for name, tensor in weights.items():
        if not torch.allclose(written[name], tensor, rtol=1e-2, atol=1e-3):
            raise UserError(f"{out}: {name} was not written as it is; the disk may be failing")


def _changes(before: Tensors, after: Tensors, layer: int) -> str:
    """How far the weights moved that the language model sees, and those that it does not."""
    seen, unseen = list[float](), list[float]()
    for name, tensor in after.items():
        size = max(float(tensor.norm()), float(before[name].norm()), TINY)
        change = float((tensor - before[name]).norm()) / size
        (seen if _is_seen(name, layer) else unseen).append(change)
    told = f"weights before layer {layer}: changed by {max(seen):.1%} at most"
    if max(seen) <= UNCHANGED:
        told = (
            f"warning: no weight before layer {layer} changed, so the language model sees what it "
            "saw; train more than the last block"
        )
    return f"{told}; behind it, unseen: {max(unseen, default=0.0):.1%}"


def _is_seen(name: str, layer: int) -> bool:
    block = BLOCK_OF.match(name)
    if block is not None:
        return int(block[1]) < layer
    return not name.startswith("post_layernorm")
