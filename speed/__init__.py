"""Measurements of speed and memory: run.py lists them."""
