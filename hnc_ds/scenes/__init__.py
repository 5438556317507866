"""Rendered scenes with exact scene graphs, for the demo and the tests."""
