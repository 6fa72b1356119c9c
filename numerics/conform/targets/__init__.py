"""The kernel under test as a function of NumPy arrays: called with copies, its results made plain."""
