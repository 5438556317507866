"""A checkpoint -> rows of results.json."""
