"""Released files of benchmarks as questions. A file for each family; table: question_sets.py."""
