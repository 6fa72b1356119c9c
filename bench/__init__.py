"""What it costs and what it gains, each file runnable by itself: python -m bench.<name>."""
