"""Models: a plan of what gets which format and why, and models that follow it, eager or as graphs."""
