"""Scene graphs -> true captions and hard negatives. Pure Python, no torch."""
