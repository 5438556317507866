"""Truth of a claim according to a scene graph: TRUE, FALSE or UNKNOWN."""
