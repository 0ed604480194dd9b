"""The rules, one family of operators a file."""
