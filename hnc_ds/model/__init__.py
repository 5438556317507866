"""open_clip models, and what training adds to them."""
