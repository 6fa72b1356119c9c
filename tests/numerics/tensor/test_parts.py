"""A QTensor is checked when it is made, wherever it comes from: no byte beyond its parts is ever read."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import pickle
import struct

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.backends.host.executor import Affine
from numerics.backends.host.tensors import as_array
from numerics.backends.partition import Partition
from numerics.files.safetensors import Reader, Writer
from numerics.formats import dispatch as backends
from numerics.formats.block import PackedBlocks
from numerics.pytorch.qtensor import TensorQTensor, rebuilt
from numerics.tensor.parts import PARTS
from numerics.tensor.spec import QuantSpec
from tests.helpers.bits import assert_same_bits

RECIPES = [
    ("int4", {}),
    ("int8", {"scheme": "per_channel(0)"}),
    ("int8", {"scheme": "per_group(16)", "symmetric": False}),
    ("int16", {"scheme": "per_channel(1)", "symmetric": False, "zero_point_type": "float32"}),
    ("fp6_e2m3", {"scale_type": "pof2"}),
    ("mx6", {}),
    ("mx9", {"axis": 0}),
    ("mxfp4", {}),
    ("mxfp4", {"axis": 0}),
    ("nvfp4", {}),
]
NAMED = pytest.mark.parametrize(("d", "options"), RECIPES, ids=[f"{d} {o}" for d, o in RECIPES])
SHAPE = (32, 64)


def quantized(d: str, options: dict) -> TensorQTensor:
    return nx.quantize(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), d, **options)


def wrong(part: torch.Tensor) -> list:
    """What may stand in the place of a part, and is none."""
    return [
        None,
        part.reshape(-1)[: part.numel() // 2] if part.numel() > 1 else torch.ones(3),
        torch.empty(0, dtype=part.dtype),
        torch.cat([part.reshape(-1), part.reshape(-1)]),
        part.reshape(1, *part.shape),
        part.to(torch.int64),
        part.to(torch.float16),
        part.to(torch.complex64),
        torch.ones(part.shape, dtype=part.dtype, device="meta"),
        part.reshape(-1).to_sparse(),
        nx.quantize(torch.ones(part.shape), "int8"),
        part.numpy() if part.dtype != torch.bfloat16 else "part",
        "part",
        5,
    ]


def each_wrong(q: TensorQTensor):
    """Every part of q in turn replaced: (names and parts).  A whole tensor on "meta" is one."""
    whole = {name: getattr(q, name) for name in PARTS}
    alone = sum(part is not None for part in whole.values()) == 1
    for name, part in whole.items():
        for came in [torch.ones(3), torch.ones(())] if part is None else wrong(part):
            if not (alone and name == "packed" and getattr(came, "is_meta", False)):
                yield name, {**whole, name: came}


@NAMED
def test_a_pickle_of_bytes_that_are_too_few_is_refused(d, options):
    """`torch.load(weights_only=True)` of it, and dequantize, read past the end or returned the heap."""
    q = quantized(d, options)
    for name, parts in each_wrong(q):
        with pytest.raises(nx.NumericsError):
            rebuilt(q.spec.text, SHAPE, "float32", list(parts.values()), False)
        with pytest.raises(nx.NumericsError):
            setattr(q, name, parts[name])
    for shape in ((32 * 1024, 64), (32, 64 * 512), (32,), (), (0, 4), (32, 64, 3), (2**20, 64)):
        with pytest.raises(nx.NumericsError):
            rebuilt(q.spec.text, shape, "float32", [getattr(q, name) for name in PARTS], False)


@NAMED
def test_operators_read_no_byte_beyond_their_parts(d, options):
    q = quantized(d, options)
    call = torch.ops.numerics.dequantize
    for name, parts in each_wrong(q):
        held = [part for part in parts.values() if part is not None]
        plain = all(type(part) is torch.Tensor for part in held) and parts["packed"] is not None
        one_number = name == "tensor_scale" and plain and len(held) == 3 and parts[name].numel() == 1
        if plain and not parts["packed"].is_meta and not one_number:  # else the dispatcher's, or harmless
            with pytest.raises(nx.NumericsError):
                call(*parts.values(), list(SHAPE), q.spec.text, "float32", "float32")
    for shape in ([-16, 64], [1 << 40, 1 << 40], [64, 64]):
        with pytest.raises(nx.NumericsError):
            call(*(getattr(q, name) for name in PARTS), shape, q.spec.text, "float32", "float32")


@NAMED
def test_arrays_are_checked_by_replace_pickle_and_copy(d, options):
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    q = nx.quantize(x, d, **options)
    for part in ("packed", "shared", "zero_point"):
        held = getattr(q, part)
        for came in (
            [np.ones(3)] if held is None else [None, np.ones(3, held.dtype), held[None], held.astype("f2"), 5]
        ):
            with pytest.raises(nx.NumericsError):
                dataclasses.replace(q, **{part: came})
            forged = pickle.loads(pickle.dumps(q))
            with pytest.raises(nx.NumericsError):
                forged.__setstate__({**q.__getstate__(), part: came})
    for shape in ((32, 65), (32 * 1024, 64), (-32, -64), (32.0, 64), None, [None], (True, 64), (2**70,)):
        with pytest.raises(nx.NumericsError):
            dataclasses.replace(q, shape=shape)
    for again in (copy.copy(q), copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert np.array_equal(again.dequantize(), q.dequantize())


def test_bytes_may_be_strided():
    """They are those that the strides say."""
    for d in ("mx6", "mxfp4", "int4"):
        q = nx.quantize(np.random.default_rng(1).standard_normal((4, 32)), d)
        spread = np.zeros((q.packed.size, 2), np.uint8)
        spread[:, 0] = q.packed
        assert np.array_equal(dataclasses.replace(q, packed=spread[:, 0]).dequantize(), q.dequantize())


@pytest.mark.parametrize("backend", ["cpu", "array", "reference", "gpu"])
def test_backends_count_bytes_and_scales(backend):
    """What quantize made goes back through calls that take addresses: they look for themselves."""
    make = torch.from_numpy if backend == "gpu" else np.asarray
    byte, one = make(np.zeros(12, np.uint8)), make(np.full(1, 127, np.uint8))
    with nx.use(backend):
        owner = backends.owner(torch.ones(1) if backend == "gpu" else np.ones(1))
        for d, scale in ((nx.mx6, None), (nx.mxfp4, one)):
            with pytest.raises(nx.NumericsError):
                owner.dequantize_blocks(PackedBlocks(d, 0, (1 << 12,), byte, scale))
        with pytest.raises(nx.NumericsError):
            owner.dequantize_blocks(
                PackedBlocks(nx.mxfp4, 0, (1 << 12,), make(np.zeros(1 << 11, np.uint8)), one)
            )
        codes, number = make(np.zeros((1 << 12, 1), np.uint8)), make(np.ones(1, np.float32))
        shares = Partition((1 << 12, 1), 0)
        with pytest.raises(nx.NumericsError, match="scale has shape"):
            owner.decode_affine(codes, nx.int8, shares, Affine(number, None))
        with pytest.raises(nx.NumericsError, match="scale has shape"):
            owner.dequantize_packed(codes[:, 0], nx.int8, shares, Affine(number, None))
        with pytest.raises(nx.NumericsError, match="but 12 came"):
            owner.dequantize_packed(byte, nx.int8, shares, Affine(number, None))


def test_freed_memory_is_named():
    """What FSDP gives back was read at address 0."""
    x = torch.randn(1 << 12)
    q = nx.quantize(torch.randn(64, 32), "int8").clone()
    x.untyped_storage().resize_(0)
    q.packed.untyped_storage().resize_(0)
    for call in (lambda: nx.fp4.encode(x), lambda: nx.quantize(x, "int4"), q.dequantize,
                 lambda: nx.fp4.round(torch.ones(1 << 12), out=x)):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="was freed"):
            call()
    q = nx.quantize(torch.randn(64, 32), "int8").clone()
    q.packed.resize_(3)
    with pytest.raises(nx.NumericsError, match="packed must be uint8"):
        q.dequantize()


def _cut(part):
    part.resize_(3)


def _moved(part):
    part.set_(torch.zeros(7, dtype=part.dtype))


def _retyped(part):
    part.data = torch.zeros(part.shape, dtype=torch.float64)


def _freed(part):
    part.untyped_storage().resize_(0)


READS = {
    "dequantize": lambda q: q.dequantize(),
    "linear": lambda q: torch.nn.functional.linear(torch.ones(64), q),
    "a sum": lambda q: q + 1,
}


@pytest.mark.turns(6)
@pytest.mark.parametrize("change", [_cut, _moved, _retyped, _freed])
@pytest.mark.parametrize("part", ["packed", "shared", "zero_point", "tensor_scale"])
def test_torch_compile_called_parts_that_do_not_fit_a_fault_of_its_own(part, change):
    """The words are those of the eager call, and no error of torch's own around them."""
    d, options = ("nvfp4", {}) if part == "tensor_scale" else ("int4", {"symmetric": False})
    q = nx.quantize(torch.randn(2, 64), d, **options).clone()
    change(getattr(q, part))
    for read in READS.values():
        torch._dynamo.reset()
        with pytest.raises(nx.NumericsError) as told:
            read(q)
        with pytest.raises(nx.NumericsError) as compiled:
            torch.compile(read, backend="aot_eager")(q)
        assert str(compiled.value) == str(told.value)


@pytest.mark.parametrize("change", [_cut, _moved, _retyped])
@pytest.mark.parametrize("strict", [False, True])
def test_a_model_of_parts_that_do_not_fit_was_exported(strict, change):
    layer = torch.nn.Linear(64, 2)
    layer.weight = torch.nn.Parameter(nx.quantize(torch.randn(2, 64), "int4").clone(), requires_grad=False)
    change(layer.weight.packed)
    with pytest.raises(nx.NumericsError, match="packed must be uint8"):
        torch.export.export(layer, (torch.ones(1, 64),), strict=strict)


GOOD = nx.quantize(torch.ones(4, 32), "mx6")
TEXT, BYTES = GOOD.spec.text, [GOOD.packed, None, None, None]


@pytest.mark.parametrize(
    "garbage",
    [
        ("x" * 10_000_000, (4, 32), "float32", BYTES, False),
        ("{" * 30_000, (4, 32), "float32", BYTES, False),
        ("[" * 60_000, (4, 32), "float32", BYTES, False),
        (TEXT[:-1] + ', "scheme": "per_tensor()"}', (4, 32), "float32", BYTES, False),
        (None, (4, 32), "float32", BYTES, False),
        ([], (4, 32), "float32", BYTES, False),
        (TEXT, (-4, -32), "float32", BYTES, False),
        (TEXT, (None, 32), "float32", BYTES, False),
        (TEXT, None, "float32", BYTES, False),
        (TEXT, "ab", "float32", BYTES, False),
        (TEXT, (2**62, 2**62), "float32", BYTES, False),
        (TEXT, (0, 2**63), "float32", BYTES, False),
        (TEXT, (1,) * 100, "float32", BYTES, False),
        (TEXT, (4.0, 32), "float32", BYTES, False),
        (TEXT, (4, 32), "__class__", BYTES, False),
        (TEXT, (4, 32), "int8", BYTES, False),
        (TEXT, (4, 32), torch.float32, BYTES, False),
        (TEXT, (4, 32), None, BYTES, False),
        (TEXT, (4, 32), "float32", [], False),
        (TEXT, (4, 32), "float32", None, False),
        (TEXT, (4, 32), "float32", [None] * 4, False),
        (TEXT, (4, 32), "float32", [GOOD.packed] * 4, False),
        (TEXT, (4, 32), "float32", [b"bytes", None, None, None], False),
        (TEXT, (4, 32), "float32", BYTES, "yes"),
    ],
    ids=range(24),
)  # fmt: skip
def test_garbage_in_a_pickle_is_refused_in_a_line(garbage):
    with pytest.raises(nx.NumericsError) as refused:
        rebuilt(*garbage)
    assert len(str(refused.value)) < 2000


def test_a_loaded_parameter_is_one():
    made = torch.nn.Parameter(GOOD, requires_grad=False)
    file = io.BytesIO()
    torch.save({"w": made, "q": GOOD}, file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    assert isinstance(found["w"], torch.nn.Parameter)
    assert not isinstance(found["q"], torch.nn.Parameter)
    assert as_array(found["w"].packed).tolist() == as_array(GOOD.packed).tolist()


def test_what_a_tensor_consists_of_is_said_once():
    assert QuantSpec("mxfp4").shared_shape((2, 40)) == (2, 2)
    with pytest.raises(nx.NumericsError, match=r"mxfp4 of shape \(4, 64\): shared must be uint8 of shape"):
        TensorQTensor(
            QuantSpec("mxfp4"), (4, 64), torch.float32, {"packed": torch.zeros(128, dtype=torch.uint8)}
        )


INT4, CAST = (nx.quantize(torch.ones(4, 64), name).spec.text for name in ("int4", "bfloat16"))
OPS, X64 = torch.ops.numerics, torch.ones(4, 64)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: OPS.encode_blocks(X64, "mxfp4", -1, "floor", "half_even", None, 3), "belong to"),
        (lambda: OPS.round_blocks(X64, "nvfp4", -1, "floor", "half_even", None, 3), "belong to"),
        (lambda: OPS.round_blocks(X64, "mx6", -1, "floor", "floor", None, 3), "belong to"),
        (lambda: OPS.fake_quantize(X64, INT4, None, None, 7), "belong to"),
        (lambda: OPS.quantize(X64, INT4, None, None, 7), "belong to"),
        (lambda: OPS.quantize(X64, CAST, None, None, None, torch.zeros(4, 64, dtype=torch.int32)), "belong"),
        (lambda: OPS.round_blocks(X64, "mxfp4", -1, "floor", "bogus"), "unknown rounding"),
        (lambda: OPS.encode_blocks(X64, "mxfp4", -1, "foo"), "unknown scale rule"),
        (lambda: OPS.encode_blocks(X64, "mxfp4", -1, "floor", "half_even", 2.0), "no tensor scale"),
        (lambda: OPS.round_blocks(X64, "nvfp4", -1, "floor", "half_even", -1.0), "not a positive"),
        (lambda: OPS.encode_blocks(X64, "mxfp4", -1, "floor", "stochastic"), "exactly one"),
        (lambda: OPS.fake_quantize(X64, INT4.replace("}", ', "rounding": "stochastic"}')), "exactly one"),
    ],
)
def test_options_of_operators_reached_kernels_that_take_others(call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call()


@pytest.mark.parametrize("number", [-2.5, -1e-3, -1.0, -1e-45, math.inf, math.nan])
def test_a_tensor_scale_that_is_not_positive_was_read_as_another(number, tmp_path):
    q = nx.quantize(X64, "nvfp4")
    q.tensor_scale.fill_(number)
    for use in (q.dequantize, lambda: q.blocks, lambda: q + 1):
        with pytest.raises(nx.NumericsError, match=r"not (a )?positive"):
            use()
    path = tmp_path / "scaled.safetensors"
    good = nx.quantize(X64.numpy(), "nvfp4")
    nx.save({"a": good}, path)
    bits = struct.pack("<f", good.tensor_scale)
    path.write_bytes(path.read_bytes().replace(bits, struct.pack("<f", number)))
    with pytest.raises(nx.NumericsError, match="tensor_scale"):
        nx.load(path)["a"].dequantize()


def test_a_few_bytes_stood_for_gigabytes():
    with pytest.raises(nx.NumericsError, match="expanded"):
        rebuilt(
            '{"dtype": "int4"}', (1, 2**36), "float32",
            [torch.zeros(1, dtype=torch.uint8).expand(2**35), torch.ones(()), None, None], False,
        )  # fmt: skip


@pytest.mark.parametrize("zero_type", ["int32", "float32"])
def test_a_negative_scale_beside_a_zero_point_turns_the_signs(executor, zero_type):
    """GGUF has such scales: the sign was put over the product's, and values came out with the wrong one."""
    zero = {"int32": np.int32, "float32": np.float32}[zero_type]
    spec = QuantSpec("int4", scheme="per_channel(0)", symmetric=False, zero_point_type=zero_type)
    codes = np.stack([np.arange(16, dtype=np.uint8)] * 3)
    scale, points = np.float32([-0.5, 2.0, -1e-45]), np.array([3, -8, 0], zero)
    q = nx.QTensor.from_parts(spec, codes, scale, zero_point=points)
    integers = np.where(codes > 7, codes.astype(np.float32) - 16, codes.astype(np.float32))
    due = (integers - points[:, None].astype(np.float32)) * scale[:, None]
    assert q.dequantize().tobytes() == due.astype(np.float32).tobytes()


# ---- numbers of parts ---------------------------------------------------------------------------

ANY_ZERO = [-(2**31), -(2**31) + 3, -(2**24) - 1, -65537, -65536, -1, 0, 65535, 65536, 2**23, 2**24 + 1,
            2**24 + 3, 2**31 - 1]  # fmt: skip


def _written(d, original):
    """A tensor of arrays with any integers as zero points, and its values by NumPy."""
    spec = nx.QuantSpec(d, scheme="per_channel(0)", symmetric=False, scale_type="float")
    rows = nx.quantize(np.ones((len(ANY_ZERO), 48), original), spec)
    bits, scale = rows.format.bits, np.linspace(-1.5, 3, len(ANY_ZERO)).astype(original)
    codes = np.random.default_rng(11).integers(0, 1 << bits, rows.shape)
    q = nx.QTensor.from_parts(spec, codes.astype(rows.codes.dtype), scale, zero_point=rows.zero_point,
                              original=original)  # fmt: skip
    q.zero_point[:] = ANY_ZERO
    integers = np.where(codes > rows.format.max, codes - (1 << bits), codes).astype(original)
    return q, (integers - np.array(ANY_ZERO)[:, None].astype(original)) * scale[:, None]


@pytest.mark.parametrize("d", ["uint8", "int16"])
@pytest.mark.parametrize("original", ["float32", "float64"])
def test_a_zero_point_that_was_written_in_place_was_decoded_as_another_number(executor, d, original):
    """No call can look at it: all read the number that stands there, as a number of the arithmetic."""
    q, due = _written(d, original)
    assert_same_bits(q.dequantize(), due)


@pytest.mark.turns(6)
@pytest.mark.parametrize("d", ["int4", "uint8", "int16"])
def test_products_read_the_zero_point_that_dequantize_reads(d):
    q, due = _written(d, "float32")
    tensors, x = nx.interop.as_tensors(q), np.eye(48, dtype=np.float32)
    products = nx.linear(x, q)
    assert (products == due.T).all()
    assert_same_bits(nx.linear(torch.from_numpy(x), tensors), products)
    assert_same_bits(tensors.dequantize(), due)
    for backend in ("array", "reference"):
        with nx.use(backend):
            assert_same_bits(nx.linear(x, q), products)


ASYMMETRIC = nx.QuantSpec("int4", scheme="per_channel(0)", symmetric=False)
WITH_OFFSETS = nx.QuantSpec("int4", scheme="per_channel(0)", symmetric=False, zero_point_type="float32")
TYPED = {kind: nx.QuantSpec("int4", scheme="per_channel(0)", scale_type=kind)
         for kind in ("float16", "bfloat16", "pof2")}  # fmt: skip
WITH_ONE = nx.QuantSpec("nvfp4")
LIES = [
    *(
        (ASYMMETRIC, "zero_point", zero, "outside -8 .. 7, the range of int4")
        for zero in (8, -9, 2**24 + 1, -(2**31))
    ),
    *((WITH_OFFSETS, "zero_point", zero, "not finite") for zero in (math.nan, math.inf, -math.inf)),
    *((ASYMMETRIC, "shared", scale, "not finite") for scale in (math.nan, math.inf, -math.inf)),
    *((spec, "shared", scale, "is not") for spec in TYPED.values() for scale in (0.1, 2.0**-149, 1e38)),
    *((TYPED["pof2"], "shared", scale, "not pof2") for scale in (0.0, -1.0, 3.0, 2.0**-128)),
    (nx.QuantSpec("bfloat16"), "shared", 2.0, "is not 1"),
    *((WITH_ONE, "tensor_scale", scale, "tensor_scale") for scale in (math.nan, math.inf, 0.0, -1.0)),
]


def _refused(opened, said):
    with pytest.raises(nx.NumericsError, match=said):
        opened()
    return True


def _told(q, part, number):
    """Parts of arrays, one of them with that number in it."""
    parts = {
        name: None if (held := getattr(q, name)) is None else np.array(held, copy=True) for name in PARTS
    }
    parts[part][...] = number
    if parts["tensor_scale"] is not None:
        parts["tensor_scale"] = float(parts["tensor_scale"])
    return parts


@pytest.mark.parametrize(("spec", "part", "number", "said"), LIES, ids=str)
def test_numbers_that_no_tensor_has_came_in(spec, part, number, said, tmp_path):
    """Every door from outside, in both libraries, and those out to files."""
    x = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    q = nx.quantize(x, spec)
    parts = _told(q, part, number)
    tensors = {name: None if held is None else torch.tensor(held) for name, held in parts.items()}
    if tensors["tensor_scale"] is not None:
        tensors["tensor_scale"] = tensors["tensor_scale"].float()
    beside = {"zero_point": parts["zero_point"], "tensor_scale": parts["tensor_scale"]}
    written = nx.quantize(torch.from_numpy(x), spec)
    held = {**q.__getstate__(), part: parts[part]}
    whole = copy.copy(nx.interop.as_tensors(q))
    facts = (spec.text, (2, 64), "float32", list(tensors.values()), False)
    getattr(written, part).copy_(tensors[part])
    doors = {
        "from_parts": lambda: nx.QTensor.from_parts(spec, q.codes, parts["shared"], **beside),
        "from_parts of torch": lambda: nx.QTensor.from_parts(
            spec, torch.from_numpy(q.codes), tensors["shared"], zero_point=tensors["zero_point"],
            tensor_scale=parts["tensor_scale"],
        ),
        "replace": lambda: dataclasses.replace(q, **{part: parts[part]}),
        "unpickled": lambda: copy.copy(q).__setstate__(held),
        "rebuilt": lambda: rebuilt(*facts),
        "assigned": lambda: setattr(whole, part, tensors[part]),
        "save": lambda: nx.save({"w": written}, tmp_path / "w.safetensors"),
        "torch.save": lambda: torch.save(written, tmp_path / "w.pt"),
    }  # fmt: skip
    assert {door: _refused(opened, said) for door, opened in doors.items()} == dict.fromkeys(doors, True)
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("spec", "part", "number", "said"), [
    *((ASYMMETRIC, "zero_point", np.int32(zero), "'w'.* outside -8 .. 7") for zero in (8, 2**24 + 1)),
    (WITH_OFFSETS, "zero_point", np.float32(math.nan), "'w'.* not finite"),
    *((ASYMMETRIC, "scale", np.float32(scale), "'w'.* not finite") for scale in (math.nan, math.inf)),
    (TYPED["float16"], "scale", np.float16(math.inf), "'w'.* not finite"),
    (TYPED["pof2"], "scale", np.uint8(255), "'w'.* not finite"),
    (nx.QuantSpec("float16"), "scale", np.float32(2), "'w'.* is not 1"),
], ids=str)  # fmt: skip
def test_a_file_with_numbers_that_no_tensor_has_was_loaded(spec, part, number, said, library, tmp_path):
    nx.save({"w": nx.quantize(np.ones((2, 64), np.float32), spec)}, tmp_path / "w")
    reader = Reader(tmp_path / "w")
    with Writer(tmp_path / "x", reader.entries, reader.metadata) as writer:
        for name in reader.entries:
            held = reader.words(name).copy()
            if name == f"w.{part}":
                held.view(number.dtype)[...] = number
            writer.put(name, 0, held)
    with pytest.raises(nx.NumericsError, match=said):
        nx.load(tmp_path / "x", library=library)


@pytest.mark.parametrize(("spec", "scale", "zero"), [
    (ASYMMETRIC, [-0.5, 0.0], [-8, 7]), (ASYMMETRIC, [2.0**-149, 3e38], [0, -1]),
    (WITH_OFFSETS, [1.0, -2.0], [-75.5, 1e30]),
    (TYPED["bfloat16"], [-1.0, 0.0], None), (TYPED["pof2"], [2.0**-127, 2.0**127], None),
    (TYPED["float16"], [2.0**-24, 65504.0], None),
])  # fmt: skip
def test_numbers_that_others_write_are_kept(spec, scale, zero, tmp_path):
    """GGUF has negative scales and rows of zeros a scale of 0, float zero points lie where they will."""
    codes = np.arange(128, dtype=np.uint8).reshape(2, 64) % 16
    points = None if zero is None else np.array(zero, spec.zero_point_type)
    q = nx.QTensor.from_parts(spec, codes, np.float32(scale), zero_point=points)
    nx.save({"w": q}, tmp_path / "w")
    for again in (nx.load(tmp_path / "w")["w"], pickle.loads(pickle.dumps(q)), copy.deepcopy(q)):
        assert_same_bits(again.shared, q.shared)
        assert_same_bits(again.dequantize(), q.dequantize())


@pytest.mark.parametrize(
    "number", [1e39, 2**200, 1e-46, "1", True, None, 1j, [1.0, 2.0], np.ones(2)], ids=str
)
def test_a_tensor_scale_that_float32_does_not_hold_came_in(number):
    codes, scale = np.zeros((2, 16), np.uint8), np.zeros((2, 1), np.uint8)
    with pytest.raises(nx.NumericsError, match="tensor_scale"):
        nx.QTensor.from_parts(WITH_ONE, codes, scale, tensor_scale=number)
    if type(number) is float:
        with pytest.raises(nx.NumericsError, match="tensor_scale"):
            dataclasses.replace(nx.quantize(np.ones((2, 16), np.float32), WITH_ONE), tensor_scale=number)


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float16(0.5), 1, 0.1, np.ones(1), torch.tensor(0.5)], ids=str
)
def test_a_tensor_scale_of_any_kind_becomes_float32(number):
    codes, scale = np.zeros((2, 16), np.uint8), np.zeros((2, 1), np.uint8)
    q = nx.QTensor.from_parts(WITH_ONE, codes, scale, tensor_scale=number)
    assert type(q.tensor_scale) is float
    assert q.tensor_scale == np.float32(number)


def test_numbers_are_not_looked_at_where_there_are_none():
    with torch.device("meta"):
        q = nx.QTensor.from_parts(ASYMMETRIC, torch.zeros(2, 64, dtype=torch.uint8), torch.ones(2),
                                  zero_point=torch.zeros(2, dtype=torch.int32))  # fmt: skip
    assert q.is_meta
    assert torch.load(io.BytesIO(_saved(q))).is_meta


def _saved(x):
    torch.save(x, file := io.BytesIO())
    return file.getvalue()


PUBLIC = {
    "T", "axis", "bits", "blocks", "codes", "dequantize", "dtype", "error", "format", "from_parts",
    "microexponents", "nbytes", "ndim", "original", "packed", "scale", "scale_type", "scheme", "shape",
    "shared", "size", "spec", "tensor_scale", "to", "zero_point",
}  # fmt: skip


def test_completion_of_a_qtensor_shows_what_is_its_users():
    of_arrays = nx.quantize(np.ones((2, 32), np.float32), "int8")
    of_tensors = nx.quantize(torch.ones(2, 32), "int8")
    assert {name for name in dir(of_arrays) if name[0] != "_"} == PUBLIC
    protocols = {"fsdp_pre_all_gather", "fsdp_post_all_gather"}
    assert {n for n in dir(of_tensors) if n[0] != "_"} - set(dir(torch.Tensor)) - protocols <= PUBLIC
