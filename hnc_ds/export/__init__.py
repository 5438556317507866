"""Trained towers in the layouts of other libraries; an export proves itself before it is kept."""
