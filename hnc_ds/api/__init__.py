"""What `import hnc_ds` offers to Python: models, captions, the loss, shards, evaluation."""
