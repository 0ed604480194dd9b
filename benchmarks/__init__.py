"""Scripts that print the numbers in the docs."""
