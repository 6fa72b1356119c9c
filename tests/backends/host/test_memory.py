"""Memory of large arrays: whose it is, and when another may have it."""

from __future__ import annotations

import numpy as np

from numerics.backends.host import memory


def test_memory_is_taken_again_when_nobody_has_it():
    with memory.taken_again():
        one = memory.allocate(memory.LARGE)
        place, view = one.ctypes.data, one[5:9].reshape(2, 2).view(np.int32)
        del one
        other = memory.allocate(memory.LARGE)
        assert other.ctypes.data != place  # a view still shows it
        del view
        again = memory.allocate(memory.LARGE)
        assert again.ctypes.data == place
        again[:] = 1
        small = memory.allocate(memory.LARGE // 8)
        del again, other
        larger = memory.allocate(4 * memory.LARGE)
        assert larger.flags.writeable
    kept = memory.allocate(memory.LARGE)
    assert type(kept.base) is np.ndarray
    del larger, small
