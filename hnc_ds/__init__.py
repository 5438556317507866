"""Teach CLIP with hard negative captions, and measure whether it helped.

    hnc-ds --help

The stages are joined by files: scene graphs -> captions -> tar shards -> checkpoint ->
results -> report. Each has its own folder or file here; ARCHITECTURE.md is the map.
"""

import os

# Else torch prints a page of C++ frames where a connection to another rank ends.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

__version__ = "0.1.0"
