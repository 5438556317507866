"""Runs of the stage against the fake server, in this process and in others."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import msgspec

import hnc_ds
from hnc_ds.config import RewriteConfig
from hnc_ds.records import CaptionGroup, ImageCaptions
from tests.captions.rewrite.fake_server import MODEL, FakeServer

Made = tuple[Path, Path]
"""Scene graphs, and captions of them."""


def config(made: Made, server: FakeServer, out: Path, **settings: object) -> RewriteConfig:
    graphs, captions = made
    settings = {"endpoint": server.url, "model": MODEL, "retries": 1, "per_image": 4} | settings
    return RewriteConfig(captions=captions, scene_graphs=graphs, out=out, **settings)


def command(made: Made, server: FakeServer, out: Path, *flags: str) -> subprocess.Popen[str]:
    """The settings of ``config`` on a command line."""
    graphs, captions = made
    given = f"--endpoint {server.url} --model {MODEL} --requests 4 --per-image 4".split()
    paths = ["--captions", captions, "--scene-graphs", graphs, "--out", out]
    return subprocess.Popen(
        [sys.executable, "-m", "hnc_ds.cli", "rewrite", *map(str, paths), *given, *flags],
        env=os.environ | {"PYTHONPATH": str(Path(hnc_ds.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(path: Path) -> list[ImageCaptions]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path) as file:
        return [msgspec.json.decode(line, type=ImageCaptions) for line in file]


def new_groups(path: Path) -> list[tuple[str, CaptionGroup]]:
    """Those of the model, each with its image's id."""
    return [(i.image_id, g) for i in read(path) for g in i.groups if g.source]
