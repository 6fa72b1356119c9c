"""The one door of `out=`: what is written into, and what is refused before anything is."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

import numerics as nx

X = np.linspace(-4, 4, 64, dtype=np.float32)
HOSTS = ("array", "cpu", "interpreter")


@pytest.fixture(params=HOSTS)
def host(request):
    """Runs the test on each backend that has a door of its own."""
    with nx.use(request.param):
        yield request.param


def parts(d, shape=(64,), shared=(2,)):
    """Outputs of a block format, full of sevens."""
    made = [np.full(shape, 7, np.uint8), np.full(shared, 7, np.uint8)]
    return [*made, np.full(shared, 7, np.uint8)] if isinstance(d, nx.MicroexponentBlock) else made


def all_formats():
    """A format of each family, and how many blocks 64 values are."""
    return ((nx.mxfp4, 2), (nx.nvfp4, 4), (nx.mx6, 4))


def test_read_only_parts_of_blocks_stay_as_they_are(host):
    for d, blocks in all_formats():
        for k in range(len(parts(d))):
            given = parts(d, shared=(blocks,))
            frozen = bytes(given[k])
            given[k] = np.frombuffer(frozen, np.uint8)
            if host == "interpreter":
                continue  # a tensor of read-only memory does not exist
            with pytest.raises(nx.NumericsError, match=r"out\.\w+ is read-only"):
                d.encode(X, out=nx.Blocks(d, -1, *given))
            assert all((part == 7).all() for part in given)
            assert frozen == bytes([7]) * len(frozen)


def test_a_read_only_mapping_is_no_crash():
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ) as memory:
        page = np.frombuffer(memory, np.uint8)
        with pytest.raises(nx.NumericsError, match="read-only"):
            nx.mxfp4.encode(X, out=nx.Blocks(nx.mxfp4, -1, page[:64], page[64:66]))
        with pytest.raises(nx.NumericsError, match="read-only"):
            nx.fp4.encode(X, out=page[:64])
        del page


def test_parts_that_lie_over_each_other_are_refused(host):
    for d, blocks in all_formats():
        room = np.full(64, 7, np.uint8)
        _, *rest = parts(d, shared=(blocks,))
        for k in range(len(rest)):
            given = [room, *rest]
            given[1 + k] = room[8 : 8 + blocks]
            with pytest.raises(nx.NumericsError, match=r"out\.\w+ and out\.\w+ share memory"):
                d.encode(X, out=nx.Blocks(d, -1, *given))
            assert (room == 7).all()


def test_parts_side_by_side_in_one_buffer_are_apart(host):
    room = np.zeros((2, 33), np.uint8)  # each line: 32 codes, then their scale
    due = nx.mxfp4.encode(X.reshape(2, 32))
    nx.mxfp4.encode(X.reshape(2, 32), out=nx.Blocks(nx.mxfp4, -1, room[:, :32], room[:, 32:]))
    assert np.array_equal(room[:, :32], due.codes)
    assert np.array_equal(room[:, 32:], due.scale)


@pytest.mark.parametrize("codes_at", [None, 0, 1, 64, 192])
@pytest.mark.parametrize("scale_at", [None, 0, 3, 254])
def test_parts_over_x_are_written_when_x_was_read(host, codes_at, scale_at):
    due = nx.mxfp4.encode(X)
    x = X.copy()
    memory = x.view(np.uint8)
    codes, scale = np.zeros(64, np.uint8), np.zeros(2, np.uint8)
    if codes_at is not None:
        codes = memory[codes_at : codes_at + 64]
    if scale_at is not None:
        scale = memory[scale_at : scale_at + 2]
    out = nx.Blocks(nx.mxfp4, -1, codes, scale)
    if np.shares_memory(codes, scale):
        with pytest.raises(nx.NumericsError, match="share memory"):
            nx.mxfp4.encode(x, out=out)
        assert np.array_equal(x, X)
        return
    nx.mxfp4.encode(x, out=out)
    assert np.array_equal(codes, due.codes)
    assert np.array_equal(scale, due.scale)


def test_values_over_the_scales_that_they_need(host):
    made = nx.mxfp4.encode(X)
    due = made.decode()
    room = np.zeros(64, np.float32)
    scale = room.view(np.uint8)[100:102]
    scale[...] = made.scale
    assert np.array_equal(nx.mxfp4.decode(nx.Blocks(nx.mxfp4, -1, made.codes, scale), out=room), due)


FOLDED = {
    "broadcast": lambda kind: np.lib.stride_tricks.as_strided(np.zeros(1, kind), (64,), (0,)),
    "half over each other": lambda kind: np.lib.stride_tricks.as_strided(
        np.zeros(40, kind), (2, 32), (np.dtype(kind).itemsize * 8, np.dtype(kind).itemsize)
    ).reshape(2, 32),
    "a byte apart": lambda kind: np.lib.stride_tricks.as_strided(np.zeros(80, kind), (64,), (1,)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_out_whose_elements_share_memory_is_refused(name):
    out = FOLDED[name](np.float32)
    with pytest.raises(nx.NumericsError, match="share their memory"):
        nx.fp4.round(X.reshape(out.shape), out=out)


def test_odd_layouts_that_do_not_fold_are_written(host):
    due = nx.fp4.round(X)
    woven = np.lib.stride_tricks.as_strided(np.zeros(64, np.float32), (8, 8), (4, 32))  # a transposed one
    skewed = np.lib.stride_tricks.as_strided(np.zeros(400, np.float32), (8, 8), (4 * 9, 4 * 13))
    for out in (
        woven,
        skewed,
        np.zeros((8, 16), np.float32)[:, ::2],
        np.zeros((8, 8), np.float32)[::-1, ::-1],
    ):
        if host == "interpreter" and min(out.strides) < 0:
            continue  # torch has no such strides
        assert nx.fp4.round(X.reshape(8, 8), out=out) is out
        assert np.array_equal(out.reshape(-1), due)


@pytest.mark.parametrize("kind", [">f4", "<f4", ">f8", ">f2"])
def test_out_of_the_other_byte_order_holds_the_values(kind):
    for name in ("array", "cpu"):
        with nx.use(name):
            x = X.astype(kind)
            out = np.zeros(64, kind)
            due = nx.fp4.round(X.astype(np.dtype(kind).newbyteorder("=")))
            assert nx.fp4.round(x, out=out) is out
            assert np.array_equal(out, due)
            assert np.array_equal(nx.fp4.round(x, out=x), due)
    codes, wide = np.zeros(3, ">u2"), np.float32([1, -2, 3])
    assert np.array_equal(nx.float16.encode(wide, out=codes), nx.float16.encode(wide))


NO_BLOCKS = {"an array": np.zeros(64, np.uint8), "a tuple": (1, 2), "a number": 5, "a text": "x"}


@pytest.mark.parametrize("name", NO_BLOCKS)
def test_out_of_blocks_that_is_none_is_named(name, host):
    with pytest.raises(nx.NumericsError, match="out must be Blocks of mx6 along axis -1, not"):
        nx.mx6.encode(X, out=NO_BLOCKS[name])


def test_parts_that_a_format_has_not_are_refused(host):
    codes, scale = parts(nx.mxfp4)
    with pytest.raises(nx.NumericsError, match=r"out\.microexponents cannot be"):
        nx.mxfp4.encode(X, out=nx.Blocks(nx.mxfp4, -1, codes, scale, scale.copy()))
    with pytest.raises(nx.NumericsError, match=r"out\.microexponents is missing"):
        nx.mx6.encode(X, out=nx.Blocks(nx.mx6, -1, codes, np.zeros(4, np.uint8)))


def test_axes_of_out_are_counted_from_either_end(host):
    x = X.reshape(2, 32)
    due = nx.mxfp4.encode(x)
    out = nx.Blocks(nx.mxfp4, 1, np.zeros((2, 32), np.uint8), np.zeros((2, 1), np.uint8))
    nx.mxfp4.encode(x, axis=-1, out=out)
    assert np.array_equal(out.codes, due.codes)


def test_out_is_what_comes_back_whatever_came():
    codes = np.zeros(2, np.uint8)
    for x in ([1.0, 2.0], np.float32([1, 2]), torch.tensor([1.0, 2.0])):
        assert nx.fp4.encode(x, out=codes) is codes
        tensor = torch.zeros(2, dtype=torch.uint8)
        assert nx.fp4.encode(x, out=tensor) is tensor
        assert codes.tolist() == tensor.tolist() == [2, 4]


# ---- torch ---------------------------------------------------------------------------------------


@pytest.fixture(params=["cpu", "gpu"])
def device_backend(request):
    """The backend of tensors on the CPU, and the GPU's, whose kernels are interpreted."""
    with nx.use(request.param):
        yield request.param


def test_out_moves_the_counter_of_autograd(device_backend):
    for write in (
        lambda h: nx.fp4.round(torch.full((32,), 4.0), out=h),
        lambda h: nx.mxfp4.round(torch.full((32,), 4.0), out=h),
        lambda h: nx.fp4.decode(torch.full((32,), 4, dtype=torch.uint8), out=h),
        lambda h: nx.mxfp4.encode(torch.full((32,), 4.0)).dtype.decode(
            nx.mxfp4.encode(torch.ones(32)), out=h
        ),
    ):
        w = torch.ones(32, requires_grad=True)
        h = w * 2
        loss = (h * h).sum()
        write(h.detach())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_every_part_of_blocks_moves_its_counter(device_backend):
    out = nx.Blocks(nx.mx6, -1, *(torch.zeros(n, dtype=torch.uint8) for n in (64, 4, 4)))
    nx.mx6.encode(torch.from_numpy(X), out=out)
    assert [part._version for part in (out.codes, out.scale, out.microexponents)] == [1, 1, 1]


def test_out_of_a_graph_is_refused_as_torch_does(device_backend):
    leaf = torch.ones(3, requires_grad=True)
    for out in (leaf, leaf * 2):
        with pytest.raises(nx.NumericsError, match="out requires a gradient"):
            nx.fp4.round(torch.tensor([0.3, 5.0, 7.0]), out=out)
    with pytest.raises(nx.NumericsError, match="x requires a gradient"):
        nx.fp4.round(leaf, out=torch.zeros(3))
    assert leaf.tolist() == [1, 1, 1]
    with torch.no_grad():
        nx.fp4.round(torch.tensor([0.3, 5.0, 7.0]), out=leaf)
    assert leaf.tolist() == [0.5, 4, 6]


def test_out_of_inference_mode_is_refused_outside(device_backend):
    x = torch.tensor([0.3, 5.0, 7.0])
    with torch.inference_mode():
        out = torch.zeros(3)
        assert nx.fp4.round(x, out=out).tolist() == [0.5, 4, 6]
    with pytest.raises(nx.NumericsError, match="inference mode"):
        nx.fp4.round(x * 2, out=out)
    assert out.tolist() == [0.5, 4, 6]


def test_out_that_is_computed_when_read_is_refused(device_backend):
    lazy = torch.zeros(3, dtype=torch.complex64).conj().imag
    assert lazy.is_neg()
    with pytest.raises(nx.NumericsError, match="negates"):
        nx.fp4.round(torch.ones(3), out=lazy)
    with pytest.raises(nx.NumericsError, match="share their memory"):
        nx.fp4.round(torch.ones(3), out=torch.zeros(1).expand(3))


@pytest.mark.parametrize("kept", [0, 40])
def test_freed_memory_is_not_read_or_written(device_backend, kept):
    """As FSDP frees what it has sharded: the tensors stay, and their storage is empty."""
    x = torch.ones(100)
    tail, codes, bits = x[50:], x.view(torch.uint8), x.view(torch.int32)
    x.untyped_storage().resize_(kept)
    for call in (
        lambda: nx.fp4.encode(x), lambda: nx.fp4.round(x), lambda: nx.quantize(x, "int4"),
        lambda: nx.fake_quantize(tail, "mx6"), lambda: nx.fp4.round(torch.ones(100), out=x),
        lambda: nx.fp8_e4m3.decode(codes), lambda: nx.fp4.unpack(codes, 800),
        lambda: nx.fp4.encode(torch.ones(100), rounding="stochastic", random_bits=bits),
        lambda: nx.mxfp4.decode(nx.Blocks(nx.mxfp4, -1, torch.ones(32 * 400, dtype=torch.uint8), codes)),
        lambda: nx.mxfp4.encode(torch.ones(400), out=nx.Blocks(
            nx.mxfp4, -1, codes, torch.ones(13, dtype=torch.uint8))),
        lambda: nx.interop.to_native(codes, "fp8_e4m3"),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="was freed"):
            call()
