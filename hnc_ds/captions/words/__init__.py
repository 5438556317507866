"""Negatives from captions alone: two of their words or phrases change places."""
