"""File formats of others: scene graphs, released HNC files, lists of captions; and
captions.jsonl."""
