"""A quantized tensor: which elements share a scale, what was asked for, and what it is made of."""
