"""Teach CLIP with hard negative captions, and measure whether it helped.

    hnc-ds --help

The stages are joined by files: scene graphs -> captions -> tar shards -> checkpoint ->
results -> report. Each has its own folder or file here; ARCHITECTURE.md is the map.
"""

__version__ = "0.1.0"
