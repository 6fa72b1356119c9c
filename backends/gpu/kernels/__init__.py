"""Triton kernels: loads, stores and tiles around the shared arithmetic.

Plain functions here; build.py binds them, with what they import from formats/, into one space of
names.  UPPERCASE parameters are compiled in, and so are f, g, s, q and m, which are of formats/grid.py;
tables is the memory of f's (tables.py).
KIND names a float type; its memory comes as int32 (float32), int16 (bfloat16) or float16.  Whole
tensors are indexed in 64 bits, tiles in 32.
"""

from numerics.backends.gpu.kernels import affine, blocks, elements, memory, packing, rotation

SOURCES = (memory, packing, elements, blocks, affine, rotation)
"""All of them, for build.py."""
