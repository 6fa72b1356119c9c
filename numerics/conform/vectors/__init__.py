"""Vectors over a pipe: a device in any language is asked in lines of hex, and judged by its answers."""
