"""What of a model trains: towers, last blocks, low-rank changes, the temperature.

What does not train has requires_grad False, so that DeepSpeed keeps no optimizer state of it and
moves no gradients, and is in evaluation mode (see ``Clip.train``).
"""

from typing import Any

from hnc_ds.config import ScopeConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import TOWERS, Clip, Part
from hnc_ds.model.low_rank import add_low_rank

AFTER_BLOCKS = ("ln_post", "proj", "attn_pool", "ln_final", "text_projection")
"""What comes after the blocks in open_clip's towers; it trains with the last of them."""


def choose_scope(clip: Clip, config: ScopeConfig) -> None:
    """Freeze what is not to train, and add low-rank changes where they are asked for.

    Raises:
        UserError: More blocks than there are, or a tower without transformer blocks.
    """
    for name in TOWERS:
        chosen = config.towers in ("both", name)
        if not chosen or config.last_blocks is not None or config.lora_rank is not None:
            clip.freeze(name)
        if chosen and config.last_blocks is not None:
            _train_last_blocks(clip.tower(name), config.last_blocks, name)
        if chosen and config.lora_rank is not None:
            blocks = _blocks(clip.tower(name), name, "lora_rank")
            add_low_rank(blocks, config.lora_rank, config.lora_scale())
    if config.lora_rank is not None:
        clip.low_rank_scale = config.lora_scale()
    if not config.train_temperature:
        clip.towers.logit_scale.requires_grad_(False)
    clip.train(clip.training)


def _train_last_blocks(tower: dict[str, Part], count: int, name: str) -> None:
    blocks = _blocks(tower, name, "last_blocks")
    if count > len(blocks):
        raise UserError(
            f"last_blocks is {count}, but the {name} tower has {len(blocks)}; "
            "without last_blocks the whole tower trains"
        )
    after = [tower[part] for part in AFTER_BLOCKS if part in tower]
    for part in (*list(blocks)[len(blocks) - count :], *after):
        part.requires_grad_(True)


def _blocks(tower: dict[str, Part], name: str, setting: str) -> Any:
    blocks = getattr(tower.get("transformer"), "resblocks", None)
    if blocks is None:
        raise UserError(
            f"{setting}: the {name} tower of this model has none of open_clip's transformer "
            "blocks; train the whole tower, or the other one"
        )
    return blocks
