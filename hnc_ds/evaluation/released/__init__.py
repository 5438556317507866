"""Released benchmarks: readers, rules and scores."""
