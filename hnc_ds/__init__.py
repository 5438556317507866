"""Teach CLIP with hard negative captions, and measure whether it helped.

    hnc-ds --help

The stages are joined by files: scene graphs -> captions -> tar shards -> checkpoint ->
results -> report. Each has its own folder or file here; ARCHITECTURE.md is the map. The names below
are for Python (docs/python.md); each is imported when it is used, so that this module needs no
torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Else torch prints a page of C++ frames where a connection to another rank ends.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

__version__ = "0.1.0"

__all__ = ["Shards", "UserError", "captions_of", "evaluate", "hard_negative_loss", "load"]

_PLACES = {
    "Shards": "hnc_ds.api.dataset",
    "UserError": "hnc_ds.errors",
    "captions_of": "hnc_ds.api.captions",
    "evaluate": "hnc_ds.api.scores",
    "hard_negative_loss": "hnc_ds.api.loss",
    "load": "hnc_ds.api.models",
}

if TYPE_CHECKING:
    from hnc_ds.api.captions import captions_of
    from hnc_ds.api.dataset import Shards
    from hnc_ds.api.loss import hard_negative_loss
    from hnc_ds.api.models import load
    from hnc_ds.api.scores import evaluate
    from hnc_ds.errors import UserError
else:  # a type checker that sees this takes any name to be there

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *_PLACES})
