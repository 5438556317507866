"""Files that others made or read: scene graphs, captions, the released HNC files, caption lists."""
