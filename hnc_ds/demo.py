"""The whole job on rendered scenes, as the commands a user would type.

    hnc-ds demo

Trains twice from the same start weights on the same pictures and captions in the same order: with
alpha 0, which is plain CLIP, and with hard negatives. Then measures both on held-out scenes.
Stages that are done already are not done again.
"""

from pathlib import Path

import msgspec

from hnc_ds.commands import hnc_ds, train_unless_done
from hnc_ds.config import DemoConfig
from hnc_ds.records import Result

SCENES = "--size 64 --objects 2 2 --shapes 6 --colours 8 --patterned 0 --namesakes 0 --overlaps 0"
"""Two plain shapes a picture: enough to ask which is where, few enough to learn in minutes."""

CAPTIONS = "--types relation_attr_pred swap --by-colour 1"
"""Every relation names its ends by colour and shape: no caption fits half of a batch."""

NEGATIVES = "--hard_negatives 4 --negative_types swap 1 relation_attr_pred 1 --crop 1"
"""Two kinds that a bag of words cannot tell from the truth."""

TABLE = (
    ("swap accuracy", "hnc-shards", "pair_accuracy", "swap"),
    ("opposite-relation accuracy", "hnc-shards", "pair_accuracy", "relation_attr_pred"),
    ("image-to-text R@1", "retrieval", "image_to_text_R@1", "all"),
    ("text-to-image R@1", "retrieval", "text_to_image_R@1", "all"),
)
"""(title, benchmark, metric, group) of the rows that the demo prints."""


def demo(config: DemoConfig) -> None:
    """Run every stage and print what came out.

    Raises:
        UserError: A stage failed; its own line stands above.
    """
    data, runs = config.scenes, {"plain-clip": 0.0, "hard-negatives": config.alpha}
    sizes = f"--train {config.train} --val {config.val} --seed {config.seed}"
    hnc_ds(f"scenes --out {data} {sizes} {SCENES}")
    for split in ("train", "val"):
        captions = data / f"{split}.captions.jsonl.gz"
        if not captions.is_file():
            graphs = data / f"{split}_sceneGraphs.json"
            seed = f"--seed {config.seed}"
            hnc_ds(f"generate --scene-graphs {graphs} --out {captions} {seed} {CAPTIONS}")
        shards = data / "shards" / split
        hnc_ds(f"pack --captions {captions} --images {data / 'images'} --out {shards}")
    for name, alpha in runs.items():
        flags = f"--shards {data / 'shards' / 'train'} --seed {config.seed} --alpha {alpha:g}"
        train_unless_done(config.out / name, config.steps, config.ranks, f"{flags} {NEGATIVES}")
    for name in runs:
        results = config.out / name / "results" / "val.json"
        hnc_ds(f"evaluate {config.out / name} --shards {data / 'shards' / 'val'} --out {results}")
    page = config.out / "report.html"
    hnc_ds(f"report {' '.join(str(config.out / name) for name in runs)} --out {page}")
    _print_table({name: config.out / name / "results" / "val.json" for name in runs})
    print(f"\nreport       {page}\nTensorBoard  tensorboard --logdir {config.out}")


def _print_table(results: dict[str, Path]) -> None:
    columns = {
        name: {
            (row.benchmark, row.metric, row.group): row
            for row in msgspec.json.decode(path.read_bytes(), type=list[Result])
        }
        for name, path in results.items()
    }
    print(f"\n{'on held-out scenes, percent':30}" + "".join(f"{name:>26}" for name in columns))
    for title, *key in TABLE:
        cells = [_cell(rows.get((key[0], key[1], key[2]))) for rows in columns.values()]
        print(f"{title:30}" + "".join(f"{cell:>26}" for cell in cells))


def _cell(row: Result | None) -> str:
    if row is None:
        return "-"
    return f"{row.value:.1%} ({row.low:.1%} to {row.high:.1%})"
