"""A language model words captions; the scene graph says which of them are true and false."""
