"""Reads files of weights into a state dict, without running code of the file.

    model.safetensors
    epoch_5.pt, pytorch_model.bin       torch.save, also training checkpoints with prefixes
    ViT-B-32.pt                         OpenAI's TorchScript archives: only their tensors

Weights of Hugging Face's CLIPModel are renamed to open_clip's names, the inverse of ``export --to
hf``.
"""

import argparse
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any, cast
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np
import torch
from safetensors.torch import load_file

from hnc_ds.errors import UserError
from hnc_ds.reading import kind_of, reading

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
        UserError: They are of another Hugging Face class, or of one tower only.
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


HOLDERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys of the weights in training checkpoints."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that wrappers add to every name."""
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Last names of other tensors in TorchScript archives, where attributes look like weights."""
NUMPY = [type(np.dtype(kind)) for kind in ("?", "i4", "i8", "u1", "f2", "f4", "f8")]
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *NUMPY,
    np.float64(0).__reduce__()[0],
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # of NumPy before 2
]
"""Harmless objects that training scripts save with weights: settings and NumPy scalars."""


def read_weights(path: Path) -> State:
    """The weights of a file, on the CPU, by open_clip's names if possible.

    Raises:
        UserError: It is damaged, has no weights, or has objects that need code to be loaded.
    """
    state = _plain(_content(path), path)
    return by_open_clips_names(state, path) if is_hugging_faces(state) else state


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        with reading(path):
            return load_file(path)
    if is_torchscript(path):
        with reading_weights(path):
            return _torchscript(path)
    with reading_weights(path), torch.serialization.safe_globals(PLAIN):
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(content: Any, path: Path) -> State:
    """Tensors by name, from a training checkpoint."""
    for _ in HOLDERS:
        inner = next((content[name] for name in HOLDERS if _is_within(content, name)), None)
        if inner is None:
            break
        content = inner
    state = {
        str(name): tensor
        for name, tensor in (content.items() if isinstance(content, dict) else ())
        if isinstance(tensor, torch.Tensor) and str(name).rpartition(".")[2] not in NOT_WEIGHTS
    }
    if not state:
        raise UserError(f"{path}: holds no weights, neither at its top nor under {HOLDERS[0]}")
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_within(content: Any, name: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(name), dict)


@contextmanager
def reading_weights(path: Path) -> Iterator[None]:
    """Turn any error of reading weights into a one-line UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise UserError(
                f"{path}: holds objects of {named[1]} beside its weights, and reading those would "
                "run code of the file; where you trust it, save its state_dict alone"
            ) from error
        kind = kind_of(path)
        if not kind or is_zipfile(path) or kind.startswith("a zip"):  # as files of weights are
            kind = "truncated or broken, or no file of weights"
            kind += "" if isinstance(error, UnpicklingError) else f" ({error})".splitlines()[0]
        raise UserError(f"{path}: is {kind}") from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, like OpenAI's models."""
    if not is_zipfile(path):
        return False
    with reading_weights(path), ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torchscript(path: Path) -> State:
    with ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        found = _Tensors(archive, name.removesuffix("data.pkl")).load()
    return dict(_flat(found, ""))


class _Module:
    """Replaces any module of the archive; only keeps its attributes."""

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes


class _Tensors(Unpickler):
    """Unpickles the module tree of an archive; only tensors and containers are supported."""

    def __init__(self, archive: ZipFile, root: str) -> None:
        self._opened = archive.open(f"{root}data.pkl")
        super().__init__(self._opened)
        self._archive, self._root = archive, root
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return type("Module", (_Module,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda flat, offset, size, stride, *_: flat.as_strided(size, stride, offset)
        if module == "torch" and name in STORAGES:
            return type("Storage", (), {"dtype": STORAGES[name]})
        if (module, name) == ("collections", "OrderedDict"):
            return lambda: {}
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda values, *_: values
        raise UnpicklingError(f"GLOBAL {module}.{name}")  # as torch says it

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, storage, key, *_ = pid
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._root}data/{key}")
            if entry.compress_type != ZIP_STORED:
                raise UnpicklingError("compressed weights, which TorchScript does not write")
            content = bytearray(self._archive.read(entry))
            self._storages[key] = (
                torch.frombuffer(content, dtype=storage.dtype)
                if content
                else torch.empty(0, dtype=storage.dtype)
            )
        return self._storages[key]


STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def _flat(module: Any, above: str) -> Iterator[tuple[str, torch.Tensor]]:
    attributes = getattr(module, "attributes", None)
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(value, torch.Tensor):
            yield f"{above}{name}", value
        elif isinstance(value, _Module):
            yield from _flat(value, f"{above}{name}.")


def fit(towers: Any, state: State, what: str) -> str:
    """Load weights into an open_clip model like open_clip itself, all of them or none.

    Args:
        towers: The model.
        state: State dict by open_clip's, OpenAI's or MobileCLIP's names.
        what: Model and file, for messages.

    Returns:
        A message on tensors that were resized; empty if there are none.

    Raises:
        UserError: They are of another architecture.
    """
    from open_clip import factory
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(factory.convert_state_dict(towers, state))
    if "positional_embedding" in state and not hasattr(towers, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = cast(State, towers.state_dict())
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own:  # one that never trained
        state.setdefault("logit_bias", torch.zeros_like(own["logit_bias"]))
    if POSITION_IDS not in own:  # transformers kept it until 4.31
        state.pop(POSITION_IDS, None)
    resized = {name for name in own.keys() & state.keys() if name.endswith("positional_embedding")}
    check_fit(own, state, what, resized)
    before = {name: len(state[name]) for name in resized}
    factory.resize_pos_embed(state, towers)
    factory.resize_text_pos_embed(state, towers)
    check_fit(own, state, what)
    towers.load_state_dict(state)
    return "".join(
        f"; {name} resized from {length} positions to {len(state[name])}"
        for name, length in sorted(before.items())
        if length != len(state[name])
    )


MAX_REPORTED = 3

POSITION_IDS = "text.transformer.embeddings.position_ids"


def check_fit(own: State, state: State, what: str, resized: Collection[str] = ()) -> None:
    """Raise UserError if names or shapes differ, apart from lengths of tensors to resize."""
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    problems = (
        [f"{len(missing)} of {len(own)} tensors are missing ({missing[0]})"] if missing else []
    )
    problems += [f"{len(unknown)} are unknown ({unknown[0]})"] if unknown else []
    for name in sorted(own.keys() & state.keys()):
        first = int(name in resized)
        if own[name].shape[first:] != state[name].shape[first:] and len(problems) < MAX_REPORTED:
            shapes = (list(state[name].shape), list(own[name].shape))
            problems.append(f"{name} is {shapes[0]} in the file and {shapes[1]} in the model")
    if problems:
        raise UserError(f"{what}: the file is of another model: {'; '.join(problems)}")
