"""A device that a CPU plays: which operations would make the host wait for it.

What was put there, and everything computed from it, lies on the device. On a CPU both are the same
memory, so they are distinguished by what they were made from.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OPERATIONS = frozenset(
    (
        "_local_scalar_dense",  # float(), int(), bool() and item()
        "is_nonzero",
        "nonzero",
        "masked_select",
        "equal",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "_assert_async",
    )
)
"""Operators whose results, or their shapes, the host reads."""

METHODS = {getattr(torch.Tensor, name): name for name in ("tolist", "numpy", "cpu", "new_tensor")}
"""Copies between host and device that wait, and that a CPU does without an operation."""


class Place:
    """Memory that lies together."""

    def __init__(self) -> None:
        self._storages: dict[int, StorageWeakRef] = {}

    def put(self, *tensors: torch.Tensor) -> None:
        """Their memory is here."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = StorageWeakRef(storage)

    def drop(self, tensor: torch.Tensor) -> None:
        """Its memory is elsewhere."""
        self._storages.pop(tensor.untyped_storage()._cdata, None)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's is."""
        found = self._storages.get(tensor.untyped_storage()._cdata)
        return found is not None and not found.expired()


class PlayedDevice(TorchDispatchMode):
    """Follows what lies on the device and, of what is known to lie there, on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.host, self.waits = Place(), Place(), list[str]()

    def put_all(self) -> None:
        """Everything there is lies on the device, but for what is known to lie on the host."""
        tensors = (o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter))
        self.there.put(*(tensor for tensor in tensors if not self.host.holds(tensor)))

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy that lies on the device, made without a wait."""
        made = tensor.clone()
        self.host.drop(made)
        self.there.put(made)
        return made

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The waits for what is done within."""
        found, before = list[str](), len(self.waits)
        with _Methods(self), self:
            yield found
        found += self.waits[before:]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs))
        is_there = any(map(self.there.holds, given))
        if is_there:
            self._judge(func.overloadpacket.__name__, given)
        result = func(*args, **(kwargs or {}))
        if is_there or any(map(self.host.holds, given)):
            (self.there if is_there else self.host).put(*_tensors(result))
        return result

    def _judge(self, name: str, given: list[torch.Tensor]) -> None:
        """Note an operation that waits: by its name, for a mask as an index, or for a tensor of the
        host, which CUDA takes as an index after a copy and refuses elsewhere."""
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in given[1:])
        mixes = any(tensor.ndim and self.host.holds(tensor) for tensor in given)
        if name in OPERATIONS or by_mask or mixes:
            self.waits.append(f"{name} with a tensor of the host" if mixes else name)


class _Methods(TorchFunctionMode):
    """Notes calls of METHODS."""

    def __init__(self, device: PlayedDevice) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in METHODS and self._device.there.holds(args[0]):
            self._device.waits.append(METHODS[func])
        return func(*args, **(kwargs or {}))


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
