"""import hnc_ds: quick, and with names that type checkers and notebooks see."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import hnc_ds

HEAVY = ("torch", "numpy", "PIL", "open_clip", "transformers", "deepspeed", "msgspec", "tyro")

BODY = f"""
import sys, hnc_ds
assert not [name for name in {HEAVY} if name in sys.modules], sys.modules.keys()
assert {{*hnc_ds.__all__}} <= {{*dir(hnc_ds)}}
graph = {{"width": 9, "height": 9, "objects": {{}}}}
assert hnc_ds.captions_of(graph) == ()
assert issubclass(hnc_ds.UserError, Exception)
assert "torch" not in sys.modules
assert hnc_ds.hard_negative_loss.__module__ == "hnc_ds.api.loss"
assert "torch" in sys.modules
assert not [name for name in ("deepspeed", "transformers", "open_clip") if name in sys.modules]
"""


@pytest.mark.slow
def test_libraries_are_imported_by_the_names_that_need_them() -> None:
    done = subprocess.run([sys.executable, "-c", BODY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_another_is_an_attribute_error() -> None:
    for name in hnc_ds.__all__:
        assert getattr(hnc_ds, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'hnc_ds' has no attribute 'lode'"):
        _ = hnc_ds.lode  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, and do not run the module."""
    tree = ast.parse(Path(hnc_ds.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*seen} == {*hnc_ds.__all__}
    for name, module in seen.items():
        assert getattr(hnc_ds, name) is getattr(import_module(module), name)
