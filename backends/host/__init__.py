"""Arrays on the CPU: everything but the arithmetic, for every executor that takes NumPy's memory."""
