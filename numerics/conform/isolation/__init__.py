"""A target in a process of its own: what ends it is a verdict, with the least input that does it."""
