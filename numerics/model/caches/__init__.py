"""Caches of keys and values in the formats of a plan."""
