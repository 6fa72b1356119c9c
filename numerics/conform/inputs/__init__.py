"""Inputs that matter, derived from a format's row: of single numbers, blocks, scales, and draws."""
