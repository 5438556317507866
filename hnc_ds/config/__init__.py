"""The settings of every stage: frozen dataclasses, from which flags, help and checks come.

No torch here. Batch size, optimizer, learning rate, precision and ZeRO are not here either:
they live in ds_configs/*.json and nowhere else.
"""

from hnc_ds.config.captions import GenerateConfig, RewriteConfig, SwapWordsConfig, TablesConfig
from hnc_ds.config.cluster import DoctorConfig, GridConfig
from hnc_ds.config.evaluation import (
    BenchmarksConfig,
    CompareConfig,
    EvaluateConfig,
    InterpolateConfig,
    MineConfig,
    ReportConfig,
)
from hnc_ds.config.llava import AnswerConfig, ExportConfig, ScoreConfig
from hnc_ds.config.objective import (
    LOSS_TERMS,
    OF_NEGATIVES,
    OF_START,
    PRESETS,
    LossConfig,
    ModelConfig,
    ScopeConfig,
)
from hnc_ds.config.scenes import DemoConfig, DemoLlavaConfig, ScenesConfig
from hnc_ds.config.shards import DataConfig, InspectConfig, PackConfig
from hnc_ds.config.training import TrainConfig

__all__ = [
    "LOSS_TERMS",
    "OF_NEGATIVES",
    "OF_START",
    "PRESETS",
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
    "MineConfig",
    "ModelConfig",
    "PackConfig",
    "ReportConfig",
    "RewriteConfig",
    "ScenesConfig",
    "ScopeConfig",
    "ScoreConfig",
    "SwapWordsConfig",
    "TablesConfig",
    "TrainConfig",
]
