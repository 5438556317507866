"""What forked processes share: the server that forks them (conftest.py) imports this module."""

from importlib import import_module

from hnc_ds.launch import importing

with importing():
    for name in ("deepspeed", "hnc_ds.train", "hnc_ds.evaluation.evaluate", "tests.conftest"):
        import_module(name)
