"""The exact judge: Python integers and fractions, slow, sharing no arithmetic with the others.

exact.py: one element.  blocks.py: one block.  breakpoints.py: an encoder's whole truth as a short
list.  executor.py: the same on arrays, for every test that asks who is right.
"""

from numerics.backends.host.backend import HostBackend
from numerics.backends.reference.judge import Judge

BACKEND = HostBackend(Judge())
