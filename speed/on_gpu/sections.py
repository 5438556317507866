"""THE TABLE of sections, and the process that runs some of them.

python speed/on_gpu/sections.py '{"names": [...], "device": "cuda", ...}'     by gpu.py
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[0] = os.path.dirname(os.path.dirname(here))

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from speed.on_gpu.ground import Ground, Recorder

Work = Callable[[Ground, Recorder], None]


class Section(NamedTuple):
    """A part of the page."""

    title: str
    work: Work
    needs: float
    """Seconds without which it is not begun, the start of its process included."""


def _of(module: str, *arguments: object, function: str = "measure") -> Work:
    """A function of a module, imported when it is called: what fails there fails there alone."""

    def work(ground: Ground, recorder: Recorder) -> None:
        measure = getattr(import_module(f"speed.on_gpu.{module}"), function)
        partial(measure, *arguments)(ground, recorder)

    return work


SECTIONS = {
    "peak": Section("Peak of bf16 matrix products", _of("peak"), 20),
    "agreement": Section("Results on this device", _of("agreement"), 30),
    "ViT-L-14-336": Section("Training steps: ViT-L/14 at 336 pixels", _of("speed", "l14"), 60),
    "ViT-B-32": Section("Training steps: ViT-B/32", _of("speed", "b32"), 45),
    "real": Section("Training from shards", _of("real"), 45),
    "profile": Section("Profile of a step", _of("profile"), 60),
    "ViT-B-32-largest": Section(
        "Training steps: ViT-B/32, larger batches", _of("speed", function="measure_largest"), 40
    ),
    "llava": Section("LLaVA: questions answered", _of("llava"), 90),
    "memory": Section("Largest batches: ViT-L/14 at 336 pixels", _of("memory"), 60),
    "parts": Section("A batch in parts", _of("parts"), 70),
    "loss": Section("The loss of 8 ranks of 4,096 images, on one of them", _of("loss"), 25),
}
"""What is measured, the most wanted first. The order is that of the page."""

WHEN_ASKED = ("profile",)
"""Sections that run only where they are asked for."""
TOGETHER = (("peak", "agreement"),)
"""Sections that share a process, whose start takes longer than they do."""


def run_sections(
    names: Iterable[str], sections: Mapping[str, Section], ground: Ground, file: Path
) -> None:
    """One after the other, while there is time; none stops those after it."""
    for name in names:
        recorder, section = Recorder(file, name), sections[name]
        if ground.left() < needed(section, ground.quick):
            recorder.state(left_out(section, ground.left()))
            continue
        recorder.state("running")
        with recorder.attempt("stopped"):
            section.work(ground, recorder)
        recorder.state("done")
        ground.free()


def needed(section: Section, quick: bool) -> float:
    """Seconds that must be left."""
    return 1.0 if quick else section.needs


def left_out(section: Section, left: float) -> str:
    """The note on a section for which there is no time."""
    return f"left out: {max(0.0, left):.0f} s were left, it needs {section.needs:.0f}"


def _facts(device: torch.device, recorder: Recorder) -> None:
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        recorder.fact("accelerator", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
        recorder.fact("CUDA", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    else:
        recorder.fact("accelerator", "none: the CPU")
    recorder.fact("deepspeed", version("deepspeed"))


def main(given: str) -> None:
    """Run what gpu.py asks for."""
    asked = json.loads(given)
    device = torch.device(asked["device"])
    if device.type == "cpu":
        torch.set_num_threads(1)  # several would wait for each other where others work as well
    file, names = Path(asked["file"]), asked["names"]
    ground = Ground(device, asked["quick"], Path(asked["folder"]), asked["until"])
    with Recorder(file, names[0]).attempt("the device"):
        _facts(device, Recorder(file, names[0]))
    run_sections(names, SECTIONS, ground, file)


if __name__ == "__main__":
    main(sys.argv[1])
