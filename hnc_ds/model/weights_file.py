"""Files of weights as people have them, to a state dict; nothing of what a file holds is run.

    model.safetensors                   as they are
    epoch_5.pt, pytorch_model.bin       torch.save, also a training's with prefixes
    ViT-B-32.pt                         OpenAI's TorchScript archives: their tensors, not their code

Those of Hugging Face's CLIPModel are given open_clip's names.
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
from hnc_ds.model.hugging_face import by_open_clips_names, is_hugging_faces
from hnc_ds.reading import kind_of, reading

State = dict[str, torch.Tensor]

HOLDERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainings keep the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""That wrappers put before every name."""
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers beside the weights in OpenAI's archives."""
NUMPY = [type(np.dtype(kind)) for kind in ("?", "i4", "i8", "u1", "f2", "f4", "f8")]
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *NUMPY,
    np.float64(0).__reduce__()[0],
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # of NumPy before 2
]
"""What training scripts keep beside weights and can do no harm: settings and NumPy's numbers."""


def read_weights(path: Path) -> State:
    """The weights of a file, on the CPU, by open_clip's names where it has some for them.

    Raises:
        UserError: It is broken, holds no weights, or holds what only code of its own could read.
    """
    state = _plain(_content(path), path)
    return by_open_clips_names(state, path) if is_hugging_faces(state) else state


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        with reading(path):
            return load_file(path)
    if is_torchscript(path):
        with _reading_weights(path):
            return _torchscript(path)
    with _reading_weights(path), torch.serialization.safe_globals(PLAIN):
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(content: Any, path: Path) -> State:
    """Tensors by name, out of whatever a training keeps them in."""
    for _ in HOLDERS:
        inner = next((content[name] for name in HOLDERS if _is_within(content, name)), None)
        if inner is None:
            break
        content = inner
    state = {
        str(name): tensor
        for name, tensor in (content.items() if isinstance(content, dict) else ())
        if isinstance(tensor, torch.Tensor) and name not in NOT_WEIGHTS
    }
    if not state:
        raise UserError(f"{path}: holds no weights, neither at its top nor under {HOLDERS[0]}")
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_within(content: Any, name: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(name), dict)


@contextmanager
def _reading_weights(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file of weights, as one line that says what it is."""
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
            told = "" if isinstance(error, UnpicklingError) else f" ({error})".splitlines()[0]
            kind += told
        raise UserError(f"{path}: is {kind}") from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript's, as OpenAI published its models."""
    if not is_zipfile(path):
        return False
    with _reading_weights(path), ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torchscript(path: Path) -> State:
    with ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        found = _Tensors(archive, name.removesuffix("data.pkl")).load()
    return dict(_flat(found, ""))


class _Module:
    """Stands for any module of the archive; keeps its attributes and does nothing."""

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes


class _Tensors(Unpickler):
    """Reads the tree of modules in an archive; it knows tensors and containers and nothing else."""

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
    """Load weights into an open_clip model as open_clip itself does, all of them or none.

    Args:
        towers: The model.
        state: Of a file, by open_clip's or OpenAI's names, or those of MobileCLIP's own code.
        what: Model and file, for messages.

    Returns:
        What was changed of them, in words.

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


MOST_TOLD = 3

POSITION_IDS = "text.transformer.embeddings.position_ids"


def check_fit(own: State, state: State, what: str, resized: Collection[str] = ()) -> None:
    """UserError where names or shapes differ, but for the lengths of what will be resized."""
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    told = [f"{len(missing)} of {len(own)} tensors are missing ({missing[0]})"] if missing else []
    told += [f"{len(unknown)} are not known to it ({unknown[0]})"] if unknown else []
    for name in sorted(own.keys() & state.keys()):
        first = int(name in resized)
        if own[name].shape[first:] != state[name].shape[first:] and len(told) < MOST_TOLD:
            shapes = (list(state[name].shape), list(own[name].shape))
            told.append(f"{name} is {shapes[0]} in the file and {shapes[1]} in the model")
    if told:
        raise UserError(f"{what}: the file is of another model: {'; '.join(told)}")
