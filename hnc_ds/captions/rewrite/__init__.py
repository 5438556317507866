"""A language model rewords captions; the scene graph proves which are true and false."""
