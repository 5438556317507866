"""What presets.py compares, and on which pictures and captions, as flags of the commands."""

from dataclasses import dataclass
from typing import Any, NamedTuple

OBJECTIVES = {
    "clip": "--preset clip",
    "hnc-alpha-0.5": "--preset hnc --alpha 0.5",
    "hnc-alpha-1": "--preset hnc --alpha 1",
    "hnc-alpha-2": "--preset hnc --alpha 2",
    "hnc-alpha-5": "--preset hnc --alpha 5",
    "hnc-alpha-20": "--preset hnc --alpha 20",
    "negclip": "--preset negclip",
    "structure-clip": "--preset structure-clip",
    "dpo": "--preset dpo",
    "hnc-distill": "--preset hnc --terms contrastive 1 distill 0.5 --no-distill_negatives",
    "hnc-l2-to-start": "--preset hnc --terms contrastive 1 l2_to_start 0.001",
}
"""What is compared, as flags of a training."""

LONG = "hnc-alpha-20"
"""Compared for longer only."""

LOOK = "--size 64 --shapes 6 --colours 8 --patterned 0 --namesakes 0 --overlaps 0"
"""Plain shapes that lie apart, each kind once in a picture."""

IN_FULL = "swap 1 relation_attr_pred 1"
"""By what captions are drawn at first: 'The red star is above the blue ring.'"""

TYPES = (
    "swap 2 relation_attr_pred 2 relation_pred 2 relation_attr_subj 1.5 relation_attr_obj 1.5 "
    "relation_subj 0.5 relation_obj 0.5 swap_attribute 1 attribute 1 object 1 attribute_subg 1 "
    "and_logic_attr 0.3 and_logic_rel 0.3 xor_logic_attr 0.3 obj_verify_count 0.3 "
    "obj_verify_count_attr 0.3"
)
"""Every type that the scenes give; of relations more, which are the hardest to learn."""

EXCHANGED = "relation_attr_subj 3 relation_attr_obj 3 relation_subj 6 relation_obj 6"
"""More of what only pictures of three things have, and few of them: an exchanged end. The later
weight of a type is the one that counts."""


@dataclass(frozen=True)
class Pictures:
    """What a stage of training shows."""

    told: str
    """To readers of the page."""
    scenes: str
    """Flags of ``hnc-ds scenes`` beside LOOK."""
    types: str
    """Negative types by which captions are drawn, with their weights."""


FIRST = "two"
"""Pictures of the first stage."""

KINDS = {
    "two": Pictures(
        "pictures of two things with captions that name both in full", "--objects 2 2", IN_FULL
    ),
    "mixed": Pictures(
        "pictures of two or three with captions of all types", "--objects 2 3 --fewest 0.5", TYPES
    ),
    "three": Pictures(
        "pictures of three with captions of all types, more of them with an end exchanged",
        "--objects 3 3",
        f"{TYPES} {EXCHANGED}",
    ),
}
"""Subjects and objects can be exchanged only where there is a third thing."""


@dataclass(frozen=True)
class Comparison:
    """Objectives on pictures of one kind in the second stage and in the test."""

    objectives: tuple[str, ...]
    train: int
    """Training scenes of each kind."""
    steps: int
    """Of the second stage."""
    page: str
    """File beside this one."""


COMPARISONS = {
    "mixed": Comparison(
        tuple(name for name in OBJECTIVES if name != LONG), 40000, 2500, "PRESETS.md"
    ),
    "three": Comparison(("clip", LONG), 120000, 12500, "PRESETS_THREE.md"),
}
"""By the pictures of the second stage: many objectives for a short time; two for longer, on what
that left unlearned, an end exchanged for a third thing."""

MODEL = "tiny-rn"
DRAWN = "--crop 1 --hard_negatives 4 --workers 0"
DEEPSPEED = {
    "train_batch_size": 64,
    "optimizer": {
        "type": "AdamW",
        "params": {
            "lr": 2e-3,
            "betas": [0.9, 0.98],
            "eps": 1e-6,
            "weight_decay": 0.1,
            "torch_adam": True,
            "fused": True,
        },
    },
    "scheduler": {
        "type": "WarmupCosineLR",
        "params": {"total_num_steps": "auto", "warmup_num_steps": 50, "warmup_type": "linear"},
    },
    "gradient_clipping": 1.0,
    "zero_optimization": {"stage": 1},
}


class Counts(NamedTuple):
    """Of pictures and steps, which scores depend on."""

    train: int
    val: int
    start_steps: int
    first_steps: int
    steps: int


def protocol(pictures: str, counts: Counts) -> dict[str, Any]:
    """All that scores depend on beside objective and seed.

    Args:
        pictures: Of the second stage, a key of COMPARISONS.
        counts: Of pictures and steps.
    """
    return {
        **counts._asdict(),
        "model": MODEL,
        "deepspeed": DEEPSPEED,
        "flags": [LOOK, DRAWN],
        "pictures": [[KINDS[kind].scenes, KINDS[kind].types] for kind in (FIRST, pictures)],
    }
