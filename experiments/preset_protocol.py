"""Objectives, images and captions that presets.py compares, as flags of the commands."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hnc_ds.demo import PLAIN_SHAPES, TWO_TYPES

OBJECTIVES = {
    "clip": "--preset clip",
    "hnc-alpha-0.5": "--preset hnc --alpha 0.5",
    "hnc-alpha-1": "--preset hnc --alpha 1",
    "hnc-alpha-2": "--preset hnc --alpha 2",
    "hnc-alpha-5": "--preset hnc --alpha 5",
    "hnc-alpha-20": "--preset hnc --alpha 20",
    "hnc-sighted": "--preset hnc-sighted",
    "negclip": "--preset negclip",
    "structure-clip": "--preset structure-clip",
    "dpo": "--preset dpo",
    "ce-clip": "--preset ce-clip",
    "fsc-clip": "--preset fsc-clip",
    "clic": "--preset clic --positives 4",
    "degla": "--preset degla --reference start",  # the model has batch norms, which have no average
    "siglip": "--preset siglip --bias -3",
    "hnc-siglip": "--preset hnc-siglip --bias -3",
    "hnc-distill": "--preset hnc --terms contrastive 1 distill 0.5 --no-distill_negatives",
    "hnc-l2-to-start": "--preset hnc --terms contrastive 1 l2_sp 0.001",
}
"""The objectives, as flags of 'hnc-ds train'."""

LONG = "hnc-alpha-20"
"""Only compared in the longer training."""

TYPES = (
    "swap 2 relation_attr_pred 2 relation_pred 2 relation_attr_subj 1.5 relation_attr_obj 1.5 "
    "relation_subj 0.5 relation_obj 0.5 swap_attribute 1 attribute 1 object 1 attribute_subg 1 "
    "and_logic_attr 0.3 and_logic_rel 0.3 xor_logic_attr 0.3 obj_verify_count 0.3 "
    "obj_verify_count_attr 0.3"
)
"""All types of the scenes, with more weight on relations, which are the hardest."""

EXCHANGED = "relation_attr_subj 3 relation_attr_obj 3 relation_subj 6 relation_obj 6"
"""More weight on exchanged subjects and objects, which need a third object and are rare. A later
weight of a type overrides an earlier one."""


@dataclass(frozen=True)
class Images:
    """Images and captions of a training stage."""

    title: str
    """Description on the page."""
    scenes: str
    """Further flags of ``hnc-ds scenes``, in addition to PLAIN_SHAPES."""
    types: str
    """Negative types with their weights."""


FIRST = "two"
"""Key of the first stage's images."""

KINDS = {
    "two": Images(
        "images of two things with captions that name both in full", "--objects 2 2", TWO_TYPES
    ),
    "mixed": Images(
        "images of two or three with captions of all types",
        "--objects 2 3 --min_objects_share 0.5",
        TYPES,
    ),
    "three": Images(
        "images of three with captions of all types, more of them with an end exchanged",
        "--objects 3 3",
        f"{TYPES} {EXCHANGED}",
    ),
}
"""Only images of three have exchanged subjects and objects."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of objectives; the second stage and the test use the same kind of images."""

    objectives: tuple[str, ...]
    train: int
    """Training scenes of each kind."""
    steps: int
    """Steps of the second stage."""
    page: str
    """Output page, in this folder."""


COMPARISONS = {
    "mixed": Comparison(
        tuple(name for name in OBJECTIVES if name != LONG), 40000, 2500, "PRESETS.md"
    ),
    "three": Comparison(("clip", LONG), 120000, 12500, "PRESETS_THREE.md"),
}
"""By the images of the second stage: many objectives for a short time; two for longer, on exchanged
subjects and objects, which the short training does not learn."""

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
    """Numbers of images and steps."""

    train: int
    val: int
    start_steps: int
    first_steps: int
    steps: int


def protocol(images: str, counts: Counts) -> dict[str, Any]:
    """Everything that scores depend on, except objective and seed.

    Args:
        images: Images of the second stage, a key of COMPARISONS.
        counts: Numbers of images and steps.
    """
    return {
        **counts._asdict(),
        "model": MODEL,
        "deepspeed": DEEPSPEED,
        "flags": [PLAIN_SHAPES, DRAWN],
        "images": [[KINDS[kind].scenes, KINDS[kind].types] for kind in (FIRST, images)],
    }
