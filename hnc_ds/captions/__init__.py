"""Scene graphs -> true captions and captions made minimally false. Pure Python, no torch."""
