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


def test_arrays_of_two_sizes_in_turn_took_new_memory_each_time():
    """Parts of bfloat16 are read beside their floats, which are twice as large: seven times the CPU."""
    with memory.taken_again():
        for sizes in ([1, 2], [1, 2, 4], [4, 1]):
            places = []
            for _ in range(5):
                held = [memory.room_of(n * memory.LARGE + n) for n in sizes]
                places.append({room.ctypes.data for room in held})
                del held
            assert places[-1] == places[-2] == places[-3]


def test_what_is_of_quite_another_size_goes_back_to_the_system():
    with memory.taken_again():
        rooms = [memory.room_of(memory.LARGE * 3 + k) for k in range(3 * memory.OTHERS)]
        del rooms
        memory.room_of(memory.LARGE)
        assert len(memory._FREE.get(None)) <= memory.OTHERS + 1
        large = memory.room_of(64 * memory.LARGE)
        del large
        memory.room_of(memory.LARGE)
        assert max(room.size for room in memory._FREE.get(None)) < 4 * memory.LARGE
