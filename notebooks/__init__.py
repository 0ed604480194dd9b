"""Notebooks, kept as text; `python -m notebooks` runs them."""
