"""What a scene graph says about a claim: TRUE, FALSE or UNKNOWN."""
