"""Settings of a training run, of grids of runs, and of the check of a job's nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from hnc_ds.config.checks import Settings, at_least
from hnc_ds.config.objective import PRESETS, LossConfig, ModelConfig, ScopeConfig
from hnc_ds.config.shards import DataConfig
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """Values that override those of DeepSpeed's JSON (hnc_ds/engine/deepspeed_config.py)."""

    GROUP: ClassVar[str] = "optimizer"

    lr: float | None = None
    """Peak learning rate. This flag and the next three override DeepSpeed's JSON."""
    batch_size: int | None = None
    """Images of all GPUs together in one step (train_batch_size); open_clip's flag of this name is
    per GPU."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises to --lr; 0 starts there."""
    weight_decay: float | None = None
    """Weight decay of matrices; gains, biases and the temperature have none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr == 0:
            raise UserError("lr is 0.0; it must be more than 0, or nothing trains")
        if self.batch_size is not None:
            at_least(1, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Settings):
    """What a run would cost (hnc_ds/training/costs.py)."""

    GROUP: ClassVar[str] = "dry run"

    dry_run: bool = False
    """Print parameters, memory of a GPU by part, steps and hours of the run, and write nothing.
    Weights are not loaded."""
    dry_run_gpus: int | None = None
    """GPUs of the planned run; those of this launch when not given."""
    dry_run_images: int | None = None
    """Images of the planned run, for data that are not here yet; those of --shards when not
    given."""
    images_per_second: float | None = None
    """Speed of the planned run on all its GPUs together, as the log of a run shows it; estimated
    when not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "dry_run" or value is None:
                continue
            if not self.dry_run:
                raise UserError(f"{item.name} is for --dry_run; add it, or leave this out")
            if not value:
                raise UserError(f"{item.name} is {value}; it must be more than 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Fine-tune CLIP in this process; for several GPUs use deepspeed, torchrun or srun."""

    GROUP: ClassVar[str] = "run"
    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "objective": ("preset",),
        "optimizer": ("deepspeed_config", "ema"),
        "evaluation": (
            *("eval_shards", "eval_every", "eval", "eval_images", "eval_metric"),
            "early_stopping_patience",
        ),
        "checkpoint": ("resume", "save_every", "keep_last"),
    }

    deepspeed_config: Path | None = None
    """DeepSpeed's JSON with batch size, optimizer, precision and ZeRO: a path, or a name in
    ds_configs. When not given, that of the run that is resumed, or by what the machine has:
    zero1_bf16 on GPUs with bf16, zero1_fp16 on others; on CPUs cpu, or zero1_fp32 for pretrained
    weights."""
    run: Path | None = None
    """Output folder of the run; runs/train-001 or the next free number when not given."""
    resume: bool = False
    """Continue the run from its newest complete checkpoint, on any number of ranks."""
    config: Annotated[
        Path | None,
        tyro.conf.arg(help="Read defaults from a run or its config.json; flags override them."),
    ] = None

    preset: Annotated[
        str | None,
        tyro.conf.arg(help=f"Loss settings by name; flags override them: {', '.join(PRESETS)}."),
    ] = None

    steps: int = 1000
    """Optimizer steps of the whole run."""
    epochs: float | None = None
    """Passes over the images, in place of --steps: the fewest steps that visit each image that
    often. 0.5 is half a pass."""
    seed: int = 0
    """Seed for random weights, sample order and sampling."""
    log_every: int = 10
    """Steps between log lines."""
    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where to watch the run besides log.jsonl and the console; several are allowed. wandb and
    trackio are extras of the installation; WANDB_MODE=offline keeps wandb's files in the run."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = 2
    """How many of the newest checkpoints to keep, besides the best."""
    eval_shards: str | None = None
    """Held-out shards (a folder or a URL) for evaluation before and during training."""
    eval_every: int | None = None
    """Steps between evaluations, each of a checkpoint; --save-every when not given."""
    eval: str = ""
    """Published benchmarks for evaluation before and during training, and the folders of their
    files: sugarcrepe=DIR,valse=DIR. 'hnc-ds benchmarks' lists them."""
    eval_images: str = ""
    """Folders of the benchmarks' images: coco2017=DIR,vg=DIR:DIR2."""
    eval_metric: str | None = None
    """Score that selects the best checkpoint, BENCHMARK/METRIC/GROUP; larger is better. The first
    score when not given: for shards, the accuracy over all pairs."""
    early_stopping_patience: int | None = None
    """Evaluations without a better score after which training ends; never when not given."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, for example 0.999; checkpoints contain
    it in average/. No average when not given."""
    hang_timeout: float = 1800
    """Seconds without progress on any rank after which the run ends as hung."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the transformer blocks of both towers with torch.compile: faster steps on a GPU after
    about a minute of compilation."""
    encode_images_once: Literal["auto", "always", "never"] = "auto"
    """Encode every image once, before the first step, and read no images after it. Needs a frozen
    image tower (--towers text) and no random crops (--crop 1); auto does it there if the run visits
    images more than once."""
    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    scope: Annotated[ScopeConfig, tyro.conf.arg(name="")] = field(default_factory=ScopeConfig)
    loss: Annotated[LossConfig, tyro.conf.arg(name="")] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    optimizer: Annotated[OptimizerConfig, tyro.conf.arg(name="")] = field(
        default_factory=OptimizerConfig
    )
    plan: Annotated[PlanConfig, tyro.conf.arg(name="")] = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            1,
            steps=self.steps,
            log_every=self.log_every,
            save_every=self.save_every,
            keep_last=self.keep_last,
            hang_timeout=self.hang_timeout,
        )
        if self.epochs == 0:
            raise UserError("epochs is 0.0; it must be more than 0")
        for name in ("eval_every", "early_stopping_patience"):
            if (steps := getattr(self, name)) is not None:
                at_least(1, **{name: steps})
        if not self.measures and (self.eval_every or self.early_stopping_patience):
            raise UserError(
                "eval_every and early_stopping_patience need something to evaluate: give "
                "--eval_shards or --eval"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"ema is {self.ema}; it must be more than 0 and less than 1")
        if self.loss.follows_average() and self.ema is None:
            raise UserError("reference average is that of --ema; give its decay, such as 0.9996")
        if (names := self.loss.terms_of_negatives()) and not self.data.hard_negatives:
            raise UserError(f"terms {', '.join(names)} need hard negatives; hard_negatives is 0")

    @property
    def measures(self) -> bool:
        """Whether there is anything to evaluate during training."""
        return self.eval_shards is not None or bool(self.eval)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Check a machine, or all nodes of a job, before a long training."""

    shards: str | None = None
    """Folder or URL of shards that every rank must be able to read."""
    disk: Path = Path("runs")
    """Folder for runs; must be shared by all ranks."""
    need_gb: float = 20
    """Free space required in --disk, in gigabytes."""
    hang_timeout: float = 40
    """Seconds after which a hanging check is aborted and its rank named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, need_gb=self.need_gb)
        at_least(1, hang_timeout=self.hang_timeout)


@dataclass(frozen=True, kw_only=True)
class GridConfig(Settings):
    """List the combinations of a hyperparameter grid, or print the flags of one."""

    grid: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="GRID.json")]]
    """JSON object with a value or list of values for each flag of 'hnc-ds train'."""
    out: Path = Path("runs/sweep")
    """Folder of the runs."""
    number: int | None = None
    """Print the flags of this combination (counted from 0), one word per line."""
    deepspeed_config: Path | None = None
    """DeepSpeed's JSON for all of them: a path, or a name in ds_configs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, number=self.number or 0)


@dataclass(frozen=True, kw_only=True)
class SlurmScriptsConfig(Settings):
    """Write the SLURM scripts, to run every stage as a job."""

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DIR")]]
    """Folder that jobs will be submitted from; the scripts are written to DIR/slurm."""
    overwrite: bool = False
    """Replace scripts that differ from those of this version. site.sh, which holds the settings of
    your cluster, is kept."""
