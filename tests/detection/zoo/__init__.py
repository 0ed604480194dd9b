"""Models to be judged: coupled ones, and safe ones that look like them."""
