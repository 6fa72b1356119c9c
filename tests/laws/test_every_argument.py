"""Every public callable, each of its parameters, and what nobody should give it: refused in words, or right.

The callables and their parameters are found by themselves; a new parameter only needs a good value in GOOD.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import re
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import numerics as nx
from numerics import conform, interop, layouts, observe, train
from numerics.formats.arguments import MissingArgument, UnknownArgument
from numerics.formats.rounding import BlockOptions

FILES = {"load", "load_into", "save"}  # what paths may be is tested where files are
MODELS = {
    "admit",
    "calibrate",
    "compare",
    "footprint",
    "freeze",
    "plan",
    "quantize_",
    "report",
    "sweep",
    "unwrap",
    "wrap",
}
"""What takes models has what nobody should give beside its other tests."""
INT4 = nx.integer_format(4, narrow=True)
DTYPES = (nx.fp6_e2m3, nx.int8, nx.mxfp4, nx.nvfp4, nx.mx6)


class Hostile:
    """What raises wherever it is touched."""

    def _raise(self, *_):
        raise RuntimeError("touched")

    __eq__ = __hash__ = __bool__ = __repr__ = __str__ = __len__ = __iter__ = __index__ = __float__ = _raise
    __int__ = __array__ = __lt__ = __gt__ = __getitem__ = __contains__ = __add__ = __neg__ = __abs__ = _raise


class Text(str):
    """A text that is more than its letters."""


def odd_values():
    """One of each kind of what may come; new ones each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        sparse = torch.eye(2).to_sparse()
    gone, gone_number = torch.ones(100), torch.tensor(1)
    for freed in (gone, gone_number):
        freed.untyped_storage().resize_(0)
    objects = np.empty(2, object)
    objects[1] = Hostile()
    masked = np.ma.masked_array(np.float32([1, 2, 1e30]), [0, 0, 1])
    return {
        "None": None, "True": True, "-1": -1, "2**70": 2**70, "10**5000": 10**5000, "1.5": 1.5,
        "nan": float("nan"), "-inf": -float("inf"), "1j": 1j, "bytes": b"x", "empty text": "",
        "long text": "x" * 10**5, "text": Text("half_even"), "surrogate": "\ud800", "newline": "a\nb",
        "np.float32": np.float32(1), "np.int64": np.int64(-1), "np.bool": np.bool_(True),
        "np.str": np.str_("a"),
        "0-d array": np.array(3), "array": np.ones(3), "bools": np.ones(3, bool),
        "texts": np.array(["a", "b"]),
        "objects": objects, "records": np.zeros(2, [("a", "f4")]),
        "dates": np.zeros(2, "M8[s]"), "complex": np.ones(2, complex), "empty array": np.empty((0, 3)),
        "masked": masked, "matrix": np.matrix([[1.0, 2.0]]), "list of masked": [masked],
        "65 axes": (1,) * 65,
        "strided": np.ones(6, np.uint8)[::-2], "read-only": np.broadcast_to(np.uint8(1), (64,)),
        "ragged": [[1], [1, 2]], "nested list": [[1, [2]]], "set": {1, 2}, "dict": {"a": 1},
        "range": range(3),
        "generator": (k for k in (1, 2)), "type": int, "function": len, "object": object(),
        "hostile": Hostile(),
        "hostile list": [Hostile()], "format": nx.fp4, "block format": nx.mx6, "slice": slice(1, 2),
        "tensor": torch.ones(3), "0-d tensor": torch.tensor(1), "bool tensor": torch.tensor(True),
        "meta": torch.ones(3, device="meta"), "nested tensor": nested, "sparse": sparse, "freed": gone,
        "freed number": gone_number, "fake": fake(np.ones(3, np.float32)), "fake number": fake(np.array(1)),
        "graph": torch.ones(64, requires_grad=True), "complex tensor": torch.ones(2, dtype=torch.complex64),
        "expanded": torch.zeros(1, dtype=torch.uint8).expand(64), "torch dtype": torch.float32,
        "QTensor": nx.quantize([1.0, 2.0], "int4"), "Blocks": nx.mx6.encode([1.0, 2.0]),
    }  # fmt: skip


def fake(x):
    """What torch puts in a tensor's place to trace: it says that it is on the CPU, and has no memory."""
    return FAKE.from_tensor(torch.from_numpy(np.array(x)))


FAKE = FakeTensorMode(allow_non_fake_inputs=True)


def good_values(kind):
    """Values that fit each other, by the names of parameters; kind: makes them of arrays."""
    x = kind(np.linspace(-2, 2, 64, dtype=np.float32).reshape(2, 32))
    codes = kind(np.arange(32, dtype=np.uint8))
    return {
        "x": x, "codes": codes, "packed": kind(np.arange(12, dtype=np.uint8)), "shape": (16,),
        "dtype": "int4", "aliases": ("odd one",),
        "dtype_or_format": "int4", "q": nx.quantize(x, "int4"), "element": "fp4", "block": 32, "exponent": 4,
        "mantissa": 2, "bias": 7, "specials": "ieee", "signed": True, "subnormals": True, "has_zero": True,
        "name": "odd", "source": "here", "bits": 5, "narrow": False, "scale": None,
        "default_overflow": "saturate",
        "scheme": None, "symmetric": True, "scale_type": "float32", "zero_point_type": "int32", "axis": -1,
        "zero_point": None, "rounding": "half_even", "scale_rule": "floor", "seed": None, "random_bits": None,
        "clip_gradient": False, "overflow": None, "out": None, "tensor_scale": None, "size": 4,
        "words": kind(np.zeros(4, np.int32)), "length": 32, "order": None,
        "scales": kind(np.ones((2, 4), np.uint8)),
        "arranged": kind(np.zeros(512, np.uint8)), "rows": (2, 2), "columns": (2,), "text": "per_tensor()",
        "index": 0, "kind": "per_tensor", "sub_block": None, "tiers": None, "microexponents": None,
        "integers": None, "step": None,
        "asked": BlockOptions(), "target": nx.fp4.decode, "exhaustive": False, "strict_nan": False,
        "array": "numpy", "contiguous": False, "whole_blocks": False, "finite": False, "bins": 256,
        "nonempty": False,
        "percentile": 99.9, "averaging_constant": 0.01, "rule": "nearest", "init": "_LL_J", "group": None,
        "log2_threshold": torch.tensor(1.0),
    }  # fmt: skip


# What is good for one callable alone.
NO_MORE = {"tensors": None, "at": [(1, 3)]}
SPECIAL = {
    "linear": lambda kind: {"bias": kind(np.ones(2, np.float32)), "compute": "int8"},
    "use": lambda kind: {"name": "array"},
    "empty": lambda kind: {"dtype": np.float32},
    "explore": lambda kind: {"what": kind(np.ones((2, 32), np.float32)), "formats": ["int4"], **NO_MORE},
    "dtype": lambda kind: {"name": "fp4"},
    "block_format": lambda kind: {"mantissa": None, "scale": "e8m0"},
    "random_bits": lambda kind: {"shape": (2, 3), "seed": 1, "bits": 8},
    "p3109": lambda kind: {"bits": 8, "precision": 3, "extended": True},
    "operate": lambda kind: {"operation": "negate", "dtype": nx.p3109(8, 3), "to": None},
    "codebook_format": lambda kind: {"values": [-1.0, 0.0, 0.5, 1.0], "beyond": 2.0, "scaled_to": 0.75},
    "Block": lambda kind: {"mantissa": None, "element": nx.fp4, "scale": nx.e8m0},
    "MXBlock": lambda kind: {"element": nx.fp4, "scale": nx.e8m0},
    "MicroexponentBlock": lambda kind: {"block": 16, "mantissa": 3, "sub_block": 2},
    "TieredBlock": lambda kind: {"block": 32, "mantissa": 3, "sub_block": 4, "tiers": 2},
    "ScaledBlock": lambda kind: {"element": nx.fp4, "scale": nx.fp8_e4m3, "integers": INT4, "step": 0.857},
    "Blocks": lambda kind: {"dtype": nx.mx6},
    "Scheme.parse": lambda kind: {"size": None, "axis": None},
    "Scheme": lambda kind: {"size": None, "axis": None},
    "interop.to_native": lambda kind: {"dtype": "fp8_e4m3"},
    "interop.from_native": lambda kind: {"x": interop.to_native(kind(np.zeros(3, np.uint8)), "fp8_e4m3")},
    "interop.from_native_packed": lambda kind: {
        "x": torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)},
    "interop.to_native_packed": lambda kind: {"packed": torch.zeros(3, dtype=torch.uint8), "dtype": "fp4"},
    "interop.from_gguf": lambda kind: {"blocks": kind(np.zeros((2, 17), np.uint8)), "kind": "MXFP4"},
    "layouts.from_gguf": lambda kind: {"blocks": kind(np.zeros((2, 17), np.uint8)), "kind": "MXFP4"},
    "QTensor.dequantize": lambda kind: {"dtype": "float32"},
    "CUBLAS.restore": lambda kind: {"shape": (2, 4)},
    **{f"{d}.{verb}": lambda kind, d=d: {"blocks": d.encode(kind(np.linspace(-2, 2, 16, dtype=np.float32)))}
       for d in (nx.mxfp4, nx.nvfp4, nx.mx6) for verb in ("decode", "pack")},
    **{f"{d}.unpack": lambda kind: {
           "packed": kind(np.zeros(8, np.uint8)), "scale": kind(np.ones(1, np.uint8))}
       for d in (nx.mxfp4, nx.nvfp4)},
    **{f"{d}.{verb}": lambda kind, n=n: {"packed": kind(np.zeros(n, np.uint8))}
       for d, n in ((nx.fp6_e2m3, 12), (nx.int8, 16)) for verb in ("unpack", "decode_packed")},
}  # fmt: skip
SPECIAL |= {f"{d}.check_options": lambda kind: {"bits": None} for d in (nx.fp6_e2m3, nx.int8)}
SPECIAL["Task.of"] = lambda kind: {
    "dtype": "fp4", "kind": "decode", "inputs": "float32", "packed": False, "scale_layout": None,
    "draw": None, "least": None,
}  # fmt: skip
SPECIAL["nvfp4.largest_under"] = lambda kind: {"rule": "floor"}
SPECIAL["conform.check"] = lambda kind: {
    "dtype": "fp4", "kind": "decode", "a": None, "b": None, "accumulate": "float32", "layout": "nk",
    "bias": False, "zero_point": "split", "alpha": False, "beta": False, "in_place": False, "shapes": None,
    "effort": "default", "one_thread": False,
    "fills": False, "inputs": "float32", "packed": False, "scale_layout": None, "draw": None,
    "least": None, "isolated": False, "timeout": None,
}  # fmt: skip
SPECIAL["conform.decidable"] = lambda kind: {
    "a": np.ones((2, 32), np.float32), "b": np.ones((3, 32), np.float32), "accumulate": "float32",
}  # fmt: skip
SPECIAL["conform.fingerprint"] = lambda kind: {
    "target": np.inner, "a": "float32", "b": "float32", "shape": (2, 2, 4), "layout": "nk",
}  # fmt: skip
SPECIAL |= {f"observe.{name}": lambda kind: {"scale_type": "pof2"} for name in ("Pof2", "Pof2MSE")}
SPECIAL |= {
    f"observe.{name}.merge": lambda kind, name=name: {"other": watching(name)} for name in observe.__all__
}
SPECIAL |= {
    f"observe.{name}.restore": lambda kind, name=name: {"state": watching(name).state}
    for name in observe.__all__
}
SPECIAL["ipu.quantize_model"] = lambda kind: quantized_arguments()
SPECIAL["observe.observer"] = lambda kind: {"name": "min_max"}
SPECIAL["hadamard"] = lambda kind: {"size": 4, "signs": (1, -1, -1, 1), "inverse": False}
SPECIAL["Scheme"] = lambda kind: {"kind": "per_group", "axis": -1, "size": 4, "block": None}
SPECIAL["per_block"] = lambda kind: {"block": (4, 4)}
SPECIAL["transcode"] = lambda kind: {"dtype": "int8"}
SPECIAL["QuantSpec.parse"] = lambda kind: {"text": nx.QuantSpec("int8").text}
SPECIAL["train.lsq"] = lambda kind: {"scale": torch.tensor(0.5)}
SPECIAL["interop.to_gguf"] = lambda kind: {"q": nx.quantize(kind(np.ones((2, 32), np.float32)), "mxfp4")}
SPECIAL["interop.gguf_type"] = SPECIAL["interop.to_gguf"]
SPECIAL["layouts.pack_words"] = lambda kind: {"codes": kind(np.zeros(32, np.uint8))}


BLOCKS = (nx.Block, nx.MXBlock, nx.ScaledBlock, nx.MicroexponentBlock)


def functions(module):
    """The public functions of a module: those that it lists, else those that stand in it."""
    here = [
        name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__
    ]
    return {
        name: getattr(module, name)
        for name in getattr(module, "__all__", here)
        if not name.startswith("_") and inspect.isfunction(getattr(module, name))
    }


def methods(owner, but=()):
    """The public methods of an object."""
    names = [name for name, _ in inspect.getmembers(type(owner), inspect.isfunction)]
    return {name: getattr(owner, name) for name in names if not name.startswith("_") and name not in but}


def quantized_arguments():
    """Good arguments of it, which need ONNX."""
    from tests.helpers.onnx_models import items, residual

    return {"model": residual(), "data": items(2), "config": "a8w8", "device": "stx"}


def quantized_model(model, data, config, device):
    """nx.ipu.quantize_model, without the callback of its progress."""
    return nx.ipu.quantize_model(model, data, config, device)


def watching(name):
    """An observer that has seen a batch."""
    made = getattr(observe, name)("int8")
    made.observe(np.ones((2, 32), np.float32))
    return made


def learned(kind):
    """A module that has seen a batch."""
    made = kind("int8")
    made(torch.ones(3))
    return made


def first(kind, x):
    """The first batch of a module."""
    return kind("int8")(x)


def callables():
    """Everything public that can be called, by a name."""
    found = {name: getattr(nx, name) for name in nx.__all__ if name not in FILES | MODELS}
    found = {
        name: thing
        for name, thing in found.items()
        if inspect.isfunction(thing) or thing in (nx.Integer, nx.Float, *BLOCKS, nx.Blocks, nx.Scheme, nx.use)
    }
    found |= {"QuantSpec": nx.QuantSpec, "QuantSpec.parse": nx.QuantSpec.parse}
    found |= {
        "conform.check": conform.check,
        "conform.decidable": conform.decidable,
        "conform.fingerprint": conform.fingerprint,
        "Task.of": conform.Task.of,
        "observe.observer": observe.observer,
    }
    for name in OBSERVERS:
        found[f"observe.{name}"] = getattr(observe, name)
        found |= {f"observe.{name}.{verb}": getattr(watching(name), verb) for verb in ("observe", "restore")}
        if getattr(observe, name).mergeable:
            found[f"observe.{name}.merge"] = watching(name).merge
    others = {"THRESHOLD_INIT", "freeze_thresholds", "parameter_groups", "thresholds"}
    found |= {f"train.{name}": getattr(train, name) for name in train.__all__ if name not in others}
    for kind in (train.TQT, train.LSQ):
        found |= {
            f"train.{kind.__name__}.{verb}": getattr(learned(kind), verb) for verb in ("forward", "quantize")
        }
        found[f"train.{kind.__name__}.first"] = functools.partial(first, kind)
    if find_spec("onnxruntime"):
        found["ipu.quantize_model"] = quantized_model
    for module in (interop, layouts):
        found |= {
            f"{module.__name__.split('.')[-1]}.{name}": thing for name, thing in functions(module).items()
        }
    for d in DTYPES:
        found |= {f"{d}.{name}": method for name, method in methods(d).items()}
    found |= {f"CUBLAS.{name}": method for name, method in methods(layouts.CUBLAS).items()}
    found |= {"ScaleLayout": layouts.ScaleLayout, "Scheme.parse": nx.Scheme.parse}
    found |= {f"Scheme.{name}": method for name, method in methods(nx.per_tensor(), ("parse",)).items()}
    return found


OBSERVERS = sorted(
    name for name in observe.__all__ if name[0].isupper() and name not in ("Observer", "OBSERVERS")
)
NAMES = sorted([*callables(), "QTensor.dequantize", "QTensor.error", "QTensor.__getitem__"])
OTHERS = {("QTensor.__getitem__", "torch")}  # answers as torch's own tensors do
OTHERS |= {(name, "numpy") for name in NAMES if name.startswith("train.")}
OTHERS |= {
    (name, "torch")
    for name in ("conform.check", "Task.of", "conform.decidable", "conform.fingerprint", "ipu.quantize_model")
}
"""What is the same for both."""
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # given by no name
KINDS = {"numpy": np.asarray, "torch": lambda x: torch.from_numpy(np.array(x))}


def called(name, kind, good):
    """The callable of that name, and good arguments for it."""
    if name.startswith("QTensor."):
        function = getattr(nx.quantize(good["x"], "int4"), name.removeprefix("QTensor."))
    else:
        function = callables()[name]
    if name == "ScaleLayout":
        good = {**good, "order": (0, 1, 2)}
    values = {**good, **SPECIAL.get(name, lambda _: {})(kind)}
    parameters = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    missing = [p for p in parameters if p not in values]
    assert not missing, f"say in GOOD what a good {', '.join(missing)} of {name} is"
    return function, {p: values[p] for p in parameters}


def call(function, arguments, **more):
    """With what stands by its position, and the rest by name; more: what it does not know."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name in arguments]
    by_name = {p.name: arguments[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return function(
        *(arguments[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY), **by_name, **more
    )


def as_it_is(values):
    return {name: pickle.dumps(value) for name, value in values.items()}


@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "library"),
    [pair for name in NAMES for pair in ((name, kind) for kind in KINDS) if pair not in OTHERS],
)
def test_what_nobody_should_give_is_refused_in_words(name, library):
    kind, wrong = KINDS[library], []
    with nx.use("array"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function, good = called(name, kind, good_values(kind))
        call(function, good)
        before = as_it_is(good)
        odd = odd_values()
        for parameter in good:
            for said, value in odd.items():
                try:
                    call(function, {**good, parameter: value})
                except nx.NumericsError as error:
                    if len(str(error)) > 4000:
                        wrong.append(f"{parameter}={said}: {len(str(error))} characters")
                except Exception as error:
                    wrong.append(f"{parameter}={said}: {type(error).__name__}: {str(error)[:150]}")
        changed = [p for p, now in as_it_is(good).items() if now != before[p]]
    assert not wrong, "\n".join(wrong)
    assert not changed


OF_NOBODY = re.compile(
    r".*\.(check_\w+|values|largest_under|forward|quantize|first|partition|parse|__getitem__)"
    r"|Blocks|Scheme|ScaleLayout|Task\.of|ipu\.quantize_model"
)
"""Names of what takes no options, or is called by the house alone."""


@pytest.mark.parametrize("name", [name for name in NAMES if not OF_NOBODY.fullmatch(name)])
def test_a_keyword_that_is_not_taken_is_refused_in_words(name):
    """It ended as Python's own TypeError, which names neither the right word nor what is allowed."""
    kind = KINDS["torch" if (name, "numpy") in OTHERS else "numpy"]
    function, good = called(name, kind, good_values(kind))
    with pytest.raises(nx.NumericsError, match="nonesuch=") as refused:
        call(function, good, nonesuch=1)
    assert isinstance(refused.value, TypeError), "whoever waited for one still gets it"
    assert " allowed: " in str(refused.value)


NO_VALUES = {"meta": lambda x: torch.from_numpy(np.array(x)).to("meta"), "fake": fake}
"""Ways to make tensors that have no values."""
NEED_VALUES = re.compile(
    r"QTensor.error|interop.as_arrays|nvfp4.(encode|decode|pack)|observe.\w+.observe|transcode|explore|scales"
    r"|train.(threshold_|\w+.first)"
)
"""Names of what looks at values to answer."""


@pytest.mark.parametrize("name", [name for name in NAMES if (name, "torch") not in OTHERS and name != "use"])
@pytest.mark.parametrize("kind", NO_VALUES)
def test_tensors_without_values_give_such_or_are_refused_in_words(name, kind):
    """They were read: those on "meta" in torch's own errors, a FakeTensor wherever its address led."""
    made = NO_VALUES[kind]
    if NEED_VALUES.match(name):
        with pytest.raises(nx.NumericsError, match=r"no values|cannot be read|on meta|of real numbers, not"):
            call(*called(name, made, good_values(made)))
    else:
        call(*called(name, made, good_values(made)))


# ---- what takes models --------------------------------------------------------------------------------

ROWS = torch.linspace(-1, 1, 128).reshape(2, 64)


def layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()


def waiting():
    return nx.wrap(layers(), "int8", activations="int8", observer="min_max", example=ROWS)


def adapted():
    """A frozen model into which a layer came later."""
    return whole().append(torch.nn.Linear(8, 8))


def whole():
    return nx.calibrate(waiting(), [ROWS])


PLANNED = {"model": layers, "weights": lambda: "int8", "activations": lambda: "int8", "example": lambda: ROWS}
OF_MODELS = {
    "plan": (nx.plan, PLANNED),
    "wrap": (nx.wrap, {"model": layers, "plan": lambda: "int8"}),
    "wrap: learned": (nx.wrap, {"model": layers, "plan": lambda: "int8", "qat": lambda: "tqt",
                                "example": lambda: ROWS,
                                "threshold_init": lambda: "_3SD"}),
    "calibrate": (nx.calibrate, {"model": waiting, "batches": lambda: [ROWS]}),
    "freeze": (nx.freeze, {"model": whole}),
    "unwrap": (nx.unwrap, {"model": waiting}),
    "admit": (nx.admit, {"model": adapted}),
    "report": (nx.report, {"model": whole, "batches": lambda: [ROWS]}),
    "compare": (nx.compare, {"a": layers, "b": whole, "batches": lambda: [ROWS]}),
    "sweep": (nx.sweep, {"model": layers, "formats": lambda: ["int8"], "batches": lambda: [ROWS]}),
    "footprint": (nx.footprint, {"model": layers}),
    "quantize_": (nx.quantize_, {"model": layers, "dtype": lambda: "int8"}),
}  # fmt: skip
NO_NUMBER = ("1.5", "nan", "-inf", "-1", "0-d array", "array", "tensor", "empty text", "type", "np.float32")
ANYTHING = {("sweep", "formats"), ("freeze", "keep")}
"""Arguments of which some of these say something: a format that is none is a row of a sweep."""


def contents(model):
    """Everything of a model that a call may change: its classes, and the bits of its state."""
    every = torch.nn.Module.state_dict(model)  # a wrapped one refuses where it has modules that no plan knows
    state = {k: x.dequantize() if isinstance(x, nx.QTensor) else x for k, x in every.items()}
    return [type(m) for m in model.modules()], {k: x.numpy().tobytes() for k, x in state.items()}


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    ("name", "parameter"),
    [(name, p) for name, (function, _) in OF_MODELS.items() for p in inspect.signature(function).parameters
     if inspect.signature(function).parameters[p].kind not in VARIABLE],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_an_option_of_a_model_is_refused_in_words_before_anything_is_changed(name, parameter):
    """A wrong activations= or rules= of a sweep was the reason of every format, and no error."""
    function, good = OF_MODELS[name]
    wrong = []
    for said, value in odd_values().items():
        arguments = {key: make() for key, make in good.items()}
        models = [x for key, x in arguments.items() if isinstance(x, torch.nn.Module) and key != parameter]
        before = [contents(model) for model in models]
        try:
            function(**{**arguments, parameter: value})
        except nx.NumericsError as error:
            if len(str(error)) > 4000:
                wrong.append(f"{said}: {len(str(error))} characters")
            if [contents(model) for model in models] != before:
                wrong.append(f"{said}: the model is another")
        except Exception as error:
            wrong.append(f"{said}: {type(error).__name__}: {str(error)[:150]}")
        else:
            if said in NO_NUMBER and (name, parameter) not in ANYTHING:
                wrong.append(f"{said}: taken")
    assert not wrong, "\n".join(wrong)


# ---- what is left out ---------------------------------------------------------------------------------

MADE = re.compile(r"(Plan|Picture|Page|Verdict|Counterexample|Config|Quantized|Decision|Opened(\.\w+)?)")
"""Results: a function returns them, and nobody makes one by hand."""
OF_THE_HOUSE = re.compile(
    r".*\.(check_options|check_overflow|check_scale_rule|check_given|check_state)"  # asked by every call
    r"|QuantSpec\.(affine_options|blocking|packed_bytes|partition|shared_shape|short|stored_scale_type|with_\w+)"
    r"|Scheme\.partition|ScaledBlock\.largest_under|QTensor\.with_parts|Plan\.lines|\w+\.observe_prepared"
    r"|Task(\.(?!of$)\w+)?"  # the judge's own, which `conform.check` makes and asks
    r"|quantization_of|loaded"  # of checkpoints
    r"|\w+\.(load_state_dict|set_extra_state)"  # torch's own protocol
)
"""What the house alone calls, on paths where a check would be paid by every tensor."""


def public():
    """Every public function, class and method of this library, each once, by its name."""
    modules = [nx, conform, interop, layouts, observe, train, nx.draw, nx.checkpoints]
    modules += [nx.checkpoints.loading, nx.checkpoints.converting]
    if find_spec("onnxruntime"):
        modules.append(nx.ipu)
    seen = set()
    for module in modules:
        shown = getattr(module, "__all__", None) or functions(module)
        for name, thing in ((name, getattr(module, name)) for name in shown):
            if inspect.isclass(thing) and not issubclass(thing, BaseException):
                members = inspect.getmembers(thing, inspect.isroutine)
                found = [(name, thing), *((f"{name}.{n}", f) for n, f in members if n[0] != "_")]
            else:
                found = [(name, thing)] if inspect.isfunction(thing) else []
            for said, one in found:
                if (one.__module__ or "").startswith("numerics") and one not in seen:
                    seen.add(one)
                    yield said, one, thing


def due(function):
    """What a call has to give, `self` too."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of C
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, *VARIABLE)]


def needing():
    """Those that need an argument: by name what is called without one."""
    for name, function, owner in public():
        needed = due(function)
        alone = needed[:1] == ["self"]
        if needed[alone:] and not (MADE.fullmatch(name) or OF_THE_HOUSE.fullmatch(name)):
            yield name, functools.partial(function, object.__new__(owner)) if alone else function


NEEDING = dict(needing())


@pytest.mark.parametrize("name", NEEDING)
def test_what_is_called_without_what_it_needs_says_so(name):
    """Plan.load, Picture.save, TQT.forward and others ended in Python's own TypeError."""
    with pytest.raises(MissingArgument, match=r" needs .*, as in .*; allowed: "):
        NEEDING[name]()


def test_a_module_that_learns_says_what_its_first_call_needs():
    for kind in (train.TQT, train.LSQ):
        with pytest.raises(MissingArgument, match=rf"{kind.__name__}\.forward needs x, as in"):
            kind("int8")()


# ---- what is too much -----------------------------------------------------------------------------------

OF_TORCH = re.compile(r"\w+\.(forward|extra_repr|get_extra_state)|QTensor\.dequantize")
"""What torch calls, and traces as it is written; and what the QTensors of each library answer themselves."""
MANY = ("nonesuch",) * 40


def placed():
    """Those in which only so many arguments have a place: by name what is called with more."""
    for name, function, owner in public():
        if any(known.fullmatch(name) for known in (MADE, OF_THE_HOUSE, OF_TORCH)):
            continue
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # of C
            continue
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            alone = [p.name for p in parameters[:1]] == ["self"]
            yield name, functools.partial(function, object.__new__(owner)) if alone else function


PLACED = dict(placed())


@pytest.mark.parametrize("name", PLACED)
def test_what_is_given_more_than_has_a_place_says_so(name):
    """q.error(x, 3) and QuantSpec("int4", "per_tensor") ended in Python's own TypeError."""
    with pytest.raises(UnknownArgument, match=r" takes (no|\d+) arguments?.*: 'nonesuch' ") as refused:
        PLACED[name](*MANY)
    assert re.search(r"needs its name; allowed: |and what follows are \d+ too many", str(refused.value))


@pytest.mark.parametrize("name", ["LSQ", "TQT"])
def test_a_module_that_learns_says_that_its_first_call_takes_one_tensor(name):
    with pytest.raises(UnknownArgument, match=rf"{name}\.forward takes 1 argument, x: 3 is one too many"):
        getattr(train, name)("int8")(ROWS, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_dequantize_takes_no_second_argument(kind):
    q = nx.quantize(KINDS[kind](np.ones(4, np.float32)), "int4")
    with pytest.raises(UnknownArgument, match=r"dequantize takes 1 argument, dtype: 3 is one too many"):
        q.dequantize("float32", 3)


@pytest.mark.parametrize(
    ("value", "option"),
    [("per_tensor", "scheme='per_tensor'"), (nx.per_token(), "scheme=per_token()"),
     ("floor", "rounding='floor'"), ("rceil", "scale_rule='rceil'")],
)  # fmt: skip
def test_an_option_without_its_name_is_answered_with_the_name(value, option):
    with pytest.raises(UnknownArgument) as refused:
        nx.quantize([1.0], "int4", value)
    assert f"needs its name, {option}; allowed: " in str(refused.value)


@pytest.mark.parametrize("name", sorted(nx._MODULES))
def test_a_module_that_is_called_says_what_it_has(name):
    """nx.observe(x) was answered with "'module' object is not callable"."""
    with pytest.raises(UnknownArgument, match=rf"nx\.{name} is a module, not a function; it has \w+, \w+"):
        getattr(nx, name)([1.0])
