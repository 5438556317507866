"""What gpu.py measures: a file for each kind of section, run in processes of their own."""
