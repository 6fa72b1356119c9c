"""Trials: each gives a target some inputs and asks its laws of what comes back."""
