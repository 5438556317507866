"""True statements about an image and the hard negatives derived from them."""
