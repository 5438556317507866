"""True statements of an image, and the false captions made from them."""
