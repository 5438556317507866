"""Speed of hnc_ds beside the peers' ways of doing the same. Not installed with the package."""
