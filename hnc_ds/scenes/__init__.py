"""Rendered scenes with exact scene graphs: the data of the demo and of the tests."""
