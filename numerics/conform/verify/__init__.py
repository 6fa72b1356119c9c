"""`numerics verify`: every float32 input through a backend, against the shipped hashes of the truth."""
