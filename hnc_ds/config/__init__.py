"""Settings of every command: frozen dataclasses that define flags, help texts and checks.

No torch here. Optimizer, precision and ZeRO are in DeepSpeed's JSON (ds_configs/*.json); four flags
override its batch size, learning rate, warm-up and weight decay.
"""

from hnc_ds.config.captions import (
    DemoConfig,
    DemoLlavaConfig,
    GenerateConfig,
    RewriteConfig,
    ScenesConfig,
    SwapWordsConfig,
    TablesConfig,
)
from hnc_ds.config.evaluation import (
    AnswerConfig,
    BenchmarksConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    InterpolateConfig,
    MeasuredOn,
    MineConfig,
    ReportConfig,
    ScoreConfig,
)
from hnc_ds.config.objective import (
    LOSS_TERMS,
    PRESET_EMA,
    PRESETS,
    LossConfig,
    ModelConfig,
    ScopeConfig,
)
from hnc_ds.config.shards import DataConfig, InspectConfig, PackConfig
from hnc_ds.config.training import (
    DoctorConfig,
    GridConfig,
    OptimizerConfig,
    PlanConfig,
    SlurmScriptsConfig,
    TrainConfig,
)

__all__ = [
    "LOSS_TERMS",
    "PRESETS",
    "PRESET_EMA",
    "AnswerConfig",
    "BenchmarksConfig",
    "CompareConfig",
    "DataConfig",
    "DemoConfig",
    "DemoLlavaConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "GridConfig",
    "InspectConfig",
    "InterpolateConfig",
    "LossConfig",
    "MeasuredOn",
    "MineConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PackConfig",
    "PlanConfig",
    "ReportConfig",
    "RewriteConfig",
    "ScenesConfig",
    "ScopeConfig",
    "ScoreConfig",
    "SlurmScriptsConfig",
    "SwapWordsConfig",
    "TablesConfig",
    "TrainConfig",
]
