"""What re-aligning the connector gives a swapped tower, on rendered scenes: table in docs/llava.md.

    hnc-ds demo-llava
    python experiments/align_miniature.py      minutes on two cores; resumes where it was stopped

Both LLaVAs of the demo, with plain CLIP's tower and with the tower of hard negatives, answer its
questions as they are and after their connector alone has trained on the questions of the training
scenes (align_connector.py). The plain one too, as the connector then has had as many steps.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
from dataclasses import dataclass
from pathlib import Path

from experiments import align_connector
from experiments.preset_tables import markdown
from experiments.presets import main
from hnc_ds.atomic_files import atomic_write
from hnc_ds.config import DemoLlavaConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.benchmarks import FREE_FORM
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.results import Measurement, read_measurement
from hnc_ds.llava.tiny import (
    LLAVA_PLAIN,
    SETS,
    TRAINED,
    measure,
    results_of,
    training_examples,
)

SWAPPED = f"llava-{TRAINED}"
ALIGNED = "{}-aligned"


@dataclass(frozen=True)
class Settings:
    """Re-align the connectors of the demo's LLaVAs, and compare all four."""

    demo: Path = Path("runs/demo-llava")
    """Output folder of 'hnc-ds demo-llava'."""
    scenes: Path = Path("data/demo-llava")
    """Its scenes."""
    steps: int = 300
    """Steps of each connector."""
    batch: int = 32
    """Questions of a step."""
    lr: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of the order."""


def run(settings: Settings) -> None:
    """Make what is missing, and print the table."""
    config = DemoLlavaConfig(out=settings.demo, scenes=settings.scenes)
    folders = [settings.demo / name for name in (LLAVA_PLAIN, SWAPPED)]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: is missing; run 'hnc-ds demo-llava' first")
    data = settings.scenes / "questions"
    captions = settings.demo / "align.json"
    atomic_write(captions, conversations(data))
    aligned = [folder.with_name(ALIGNED.format(folder.name)) for folder in folders]
    for folder, out in zip(folders, aligned, strict=True):
        align(settings, folder, captions, data, out)
    shown = [folders[0], aligned[0], folders[1], aligned[1]]
    for name in SETS:
        for folder in shown:
            if not results_of(config, folder, name).is_file():
                measure(config, data, folder, name)
    print(table([[read_measurement(results_of(config, f, name)) for f in shown] for name in SETS]))


def conversations(data: Path) -> bytes:
    """The training scenes' questions in the layout of LLaVA's JSON."""
    rows = [
        {
            "id": number,
            "image": f"{one.folder.name}/{one.question.image}",
            "conversations": [
                {"from": "human", "value": f"<image>\n{one.question.text}"},
                {"from": "gpt", "value": one.answer},
            ],
        }
        for number, one in enumerate(training_examples(data))
    ]
    return json.dumps(rows).encode()


def align(settings: Settings, folder: Path, captions: Path, images: Path, out: Path) -> None:
    """Train the connector of a folder, unless that is done."""
    align_connector.run(
        align_connector.Settings(
            model=folder,
            captions=captions,
            images=images,
            out=out,
            prompt="vicuna",
            steps=settings.steps,
            batch=settings.batch,
            lr=settings.lr,
            save_every=100,
            seed=settings.seed,
        )
    )


def table(measured: list[list[Measurement]]) -> str:
    """Headline scores in percent, each with its difference from the first column."""
    rows = []
    for name, own in zip(SETS, measured, strict=True):
        dataset = SETS[name][0]
        key = (dataset, FREE_FORM[dataset].headline, "all")
        cells = [f"{100 * own[0].rows[key].value:.2f}"]
        for other in own[1:]:
            found = change_of(shared_items(own[0], other), key)
            assert found is not None
            by = found.difference
            cells.append(
                f"{100 * other.rows[key].value:.2f}, {100 * by.value:+.2f} "
                f"({100 * by.low:+.2f} to {100 * by.high:+.2f}), p {found.p:.2g}"
            )
        rows.append((f"{name}, {key[1]}", cells))
    titles = ("", "plain tower", "plain tower, re-aligned", "swapped", "swapped, re-aligned")
    return markdown(titles, rows)


if __name__ == "__main__":
    sys.exit(main("align_miniature", Settings, run))
