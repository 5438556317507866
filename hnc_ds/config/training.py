"""Settings of a training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from hnc_ds.config.checks import Settings, at_least
from hnc_ds.config.objective import OF_NEGATIVES, PRESETS, LossConfig, ModelConfig, ScopeConfig
from hnc_ds.config.shards import DataConfig
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Fine-tune a CLIP on hard negative captions."""

    deepspeed_config: Path | None = None
    """DeepSpeed's JSON, a path or a name in ds_configs: batch, optimizer, precision, ZeRO. Needed,
    unless --config names one."""

    run: Path | None = None
    """Folder of the run; runs/train-001 or the next free number when not given."""

    resume: bool = False
    """Continue the run from its newest complete checkpoint, on any number of ranks."""

    config: Annotated[
        Path | None,
        tyro.conf.arg(help="Take settings from this run's config.json; flags override them."),
    ] = None

    preset: Annotated[
        str | None,
        tyro.conf.arg(help="Loss settings by name, which flags override: " + ", ".join(PRESETS)),
    ] = None

    steps: int = 1000
    """Optimizer steps of the whole run."""

    seed: int = 0
    """Of the start weights, the order and every draw."""

    log_every: int = 10
    """Steps between lines of the log."""

    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""

    keep_last: int = 2
    """Checkpoints that are kept."""

    eval_shards: str | None = None
    """Held-out shards, a folder or a URL, that are measured while training; the start model
    first."""

    eval_every: int | None = None
    """Steps between measurements, each of a checkpoint; as --save-every when not given."""

    eval: str = ""
    """Released benchmarks that are measured while training, and where their files lie:
    sugarcrepe=DIR,valse=DIR; 'hnc-ds benchmarks' lists them."""

    eval_images: str = ""
    """Where their pictures lie: coco2017=DIR,vg=DIR:DIR2."""

    eval_metric: str | None = None
    """BENCHMARK/METRIC/GROUP of the score by which the best checkpoint is kept, the larger the
    better; the first one when not given: of shards, the accuracy over all pairs."""

    stop_early: int | None = None
    """Measurements without a better score after which training ends."""

    ema: float | None = None
    """Also keep an average of the weights, of which this share stays at each step (0.999, say);
    checkpoints hold it in average/."""

    patience: float = 1800
    """Seconds without progress on any rank after which the run is given up as hung."""

    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a
    third more time."""

    compile: bool = False
    """Compile the transformer blocks of both towers with torch.compile: faster steps on a GPU,
    about a minute before the first one."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    scope: Annotated[ScopeConfig, tyro.conf.arg(name="")] = field(default_factory=ScopeConfig)
    loss: Annotated[LossConfig, tyro.conf.arg(name="")] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            1,
            steps=self.steps,
            log_every=self.log_every,
            save_every=self.save_every,
            keep_last=self.keep_last,
            patience=self.patience,
        )
        for name in ("eval_every", "stop_early"):
            if (steps := getattr(self, name)) is not None:
                at_least(1, **{name: steps})
        if not self.measures and (self.eval_every or self.stop_early):
            raise UserError(
                "eval_every and stop_early need --eval_shards or --eval, something to measure"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}; it must be from 0 to less than 1")
        if OF_NEGATIVES & set(self.loss.weights()) and not self.data.hard_negatives:
            names = ", ".join(sorted(OF_NEGATIVES & set(self.loss.weights())))
            raise UserError(f"terms {names} need hard negatives; hard_negatives is 0")

    @property
    def measures(self) -> bool:
        """Whether there is anything to measure while training."""
        return self.eval_shards is not None or bool(self.eval)
