"""Objectives and caption generators side by side."""
