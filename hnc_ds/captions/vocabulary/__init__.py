"""Word lists as JSON, each read by the module that its first line names. Written for hnc_ds."""
