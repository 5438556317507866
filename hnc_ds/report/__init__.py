"""Results and logs of several runs -> one HTML file."""
