"""Rendered scenes -> captions -> shards in one call: what the demo trains on, and training too when
it is given no data. Every stage continues where an earlier call stopped.
"""

from pathlib import Path

from hnc_ds.captions.generate import generate
from hnc_ds.config import GenerateConfig, PackConfig, ScenesConfig
from hnc_ds.scenes.write import write_scenes
from hnc_ds.shards.pack import pack


def prepare(scenes: ScenesConfig, seed: int = 0) -> Path:
    """Render scenes, caption and pack their two splits.

    Args:
        scenes: What is drawn and where; captions and shards go below the same folder.
        seed: Of the captions.

    Returns:
        The folder that holds shards/train and shards/val.

    Raises:
        UserError: As the stages; nothing half-written.
    """
    write_scenes(scenes)
    for split in ("train", "val"):
        captions = scenes.out / f"{split}.captions.jsonl.gz"
        if not captions.is_file():
            generate(
                GenerateConfig(
                    scene_graphs=scenes.out / f"{split}_sceneGraphs.json",
                    out=captions,
                    seed=seed,
                    workers=scenes.workers,
                )
            )
        pack(
            PackConfig(
                captions=captions,
                images=(scenes.out / "images",),
                out=scenes.out / "shards" / split,
                workers=scenes.workers,
            )
        )
    return scenes.out / "shards"
