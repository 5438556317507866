"""Captions and images -> WebDataset tar shards -> batches."""
