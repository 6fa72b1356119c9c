"""The exact judge: Python integers and fractions, slow, sharing no arithmetic with the others.

exact.py: one element.  blocks.py: one block.  binary32.py: float32's own arithmetic, and integers with a
scale.  bits.py: random bits and packed codes.  breakpoints.py: an encoder's whole truth as a short list.
lookup.py: the same truth as tables, for arrays of millions.  executor.py: all of it on arrays, for every
test that asks who is right.  judge.py: that as a backend, `nx.use("reference")`.
"""

from numerics.backends.host.backend import HostBackend
from numerics.backends.reference.judge import Judge

BACKEND = HostBackend(Judge())
