"""What presets.py compares, and on which pictures and captions, as flags of the commands."""

from collections.abc import Mapping
from typing import Any

OBJECTIVES = {
    "clip": "--preset clip",
    "hnc-alpha-0.5": "--preset hnc --alpha 0.5",
    "hnc-alpha-1": "--preset hnc --alpha 1",
    "hnc-alpha-2": "--preset hnc --alpha 2",
    "hnc-alpha-5": "--preset hnc --alpha 5",
    "negclip": "--preset negclip",
    "structure-clip": "--preset structure-clip",
    "dpo": "--preset dpo",
    "hnc-distill": "--preset hnc --terms contrastive 1 distill 0.5 --no-distill_negatives",
    "hnc-l2-to-start": "--preset hnc --terms contrastive 1 l2_to_start 0.001",
}
"""What is compared, as flags of a training."""

LOOK = "--size 64 --shapes 6 --colours 8 --patterned 0 --namesakes 0 --overlaps 0"
"""Plain shapes that lie apart, each kind once in a picture."""

SCENES = {"two": "--objects 2 2", "mixed": "--objects 2 3 --fewest 0.5"}
"""Pictures of the first captions, and of those of all types: subjects and objects can be exchanged
only where there is a third thing."""

IN_FULL = "swap 1 relation_attr_pred 1"
"""By what captions are drawn at first: 'The red star is above the blue ring.'"""

TYPES = (
    "swap 2 relation_attr_pred 2 relation_pred 2 relation_attr_subj 1.5 relation_attr_obj 1.5 "
    "relation_subj 0.5 relation_obj 0.5 swap_attribute 1 attribute 1 object 1 attribute_subg 1 "
    "and_logic_attr 0.3 and_logic_rel 0.3 xor_logic_attr 0.3 obj_verify_count 0.3 "
    "obj_verify_count_attr 0.3"
)
"""Every type that the scenes give; of relations more, which are the hardest to learn."""

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


def protocol(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that scores depend on beside objective and seed; counts from the settings."""
    counts = ("train", "val", "start_steps", "first_steps", "steps")
    return {
        **{name: settings[name] for name in counts},
        "model": MODEL,
        "deepspeed": DEEPSPEED,
        "flags": [LOOK, SCENES, IN_FULL, TYPES, DRAWN],
    }
