"""Weights of Hugging Face's CLIPModel by open_clip's names; the way back of ``export --to hf``."""

import re
from pathlib import Path

import torch

from hnc_ds.errors import UserError

State = dict[str, torch.Tensor]

NAMES = {
    "logit_scale": "logit_scale",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # so misspelt there
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
"""open_clip multiplies by these from the right."""
IN_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
TOWER = {"vision": "visual.transformer", "text": "transformer"}
JOINED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
"""open_clip keeps these in one, in this order."""


def is_hugging_faces(state: State) -> bool:
    """Whether a state dict has the names of transformers' CLIP classes."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in state)


def by_open_clips_names(state: State, path: Path) -> State:
    """Rename and join the weights of a CLIPModel.

    Args:
        state: By CLIPModel's names.
        path: The file, for messages.

    Raises:
        UserError: They are of another class of Hugging Face's, or of one tower.
    """
    state = {name: t for name, t in state.items() if not name.endswith("position_ids")}
    named: State = {}
    for name, tensor in state.items():
        if name in NAMES:
            named[NAMES[name]] = tensor.T.contiguous() if name in TRANSPOSED else tensor
        elif not (found := BLOCK.fullmatch(name)):
            raise _other(path, name)
        elif found[3] in IN_BLOCK:
            named[f"{_block(found)}.{IN_BLOCK[found[3]]}.{found[4]}"] = tensor
        elif found[3] == JOINED[0]:
            parts = [name.replace(JOINED[0], part) for part in JOINED]
            if missing := next((part for part in parts if part not in state), None):
                raise UserError(f"{path}: has no {missing}; copy it again")
            joined = torch.cat([state[part] for part in parts])
            named[f"{_block(found)}.attn.in_proj_{found[4]}"] = joined
        elif found[3] not in JOINED:
            raise _other(path, name)
    if lacking := next((name for name in NAMES if NAMES[name] not in named), None):
        raise _other(path, f"no {lacking}")
    return named


def _block(found: re.Match[str]) -> str:
    return f"{TOWER[found[1]]}.resblocks.{found[2]}"


def _other(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: is of a class of Hugging Face's other than CLIPModel ({name}), whose weights "
        "have no place in an open_clip model; give open_clip's own file of it"
    )
