"""Export models to the layouts of other libraries; every export is verified before it is kept."""
