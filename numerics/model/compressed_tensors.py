"""Quantized models as compressed-tensors checkpoints, which transformers reads without this package.

What is written are the bytes that the QTensors hold, in the layouts of compressed-tensors 0.20
(https://github.com/vllm-project/compressed-tensors, `compressors/`), and a `quantization_config` that names
every layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from numerics.files.checkpoint import PathLike
from numerics.formats.block import Block
from numerics.formats.blocks import mxfp4, mxfp6_e2m3, mxfp8_e4m3, nvfp4
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp8_e4m3
from numerics.formats.integers import int8
from numerics.model.folder import CONFIG, SHARD, config_of, write_folder
from numerics.model.looking.places import Place, check_model, float_type, parameters, stored
from numerics.model.wrapped.eager import base_of
from numerics.model.wrapped.quantizers import quantizers
from numerics.pytorch.qtensor import TensorQTensor
from numerics.view.text import folded

METHOD = "compressed-tensors"
NAN_SCALE = 0xFF  # of E8M0 (OCP MX 1.0 §5.4.1)
WORD = 32  # bits of the integers that codes are packed in
BITS = range(2, 9)  # of integers that it packs

FITS = {
    "mx4": "mxfp4 or int4 per_group(32)", "mx6": "mxfp6_e2m3", "mx9": "mxfp8_e4m3 or int8 per_group(32)",
    "mxfp6_e3m2": "mxfp6_e2m3", "mxfp8_e5m2": "mxfp8_e4m3", "mxint8": "int8 per_group(32)",
    "fp4": "mxfp4 or nvfp4", "fp8_e5m2": "fp8_e4m3", "int16": "int8",
}  # fmt: skip
"""What comes nearest to a format that compressed-tensors does not have."""
ALL = "mxfp4, mxfp6_e2m3, mxfp8_e4m3, nvfp4, fp8_e4m3, integers of 2 to 8 bits"


class Unfit(Exception):
    """Why a layer cannot be stored."""


@dataclass(frozen=True)
class Scheme:
    """How compressed-tensors stores one kind of layer.

    format: its name of the layout.  weights: its arguments, as JSON, so that equal ones are one group.
    halves: it decompresses to bfloat16, whatever the model computes in.
    """

    format: str
    weights: str
    halves: bool = False

    @classmethod
    def of(cls, format: str, halves: bool = False, **weights: Any) -> Scheme:
        """One with the arguments that are the same everywhere."""
        said = {"group_size": None, "symmetric": True, "dynamic": False, "observer": "minmax", **weights}
        return cls(format, json.dumps(said, sort_keys=True), halves)

    @property
    def symmetric(self) -> bool:
        """Has it no zero points?"""
        return bool(json.loads(self.weights)["symmetric"])


@dataclass(frozen=True)
class Stored:
    """A layer as the file has it: its scheme, and its tensors by their names within the layer.

    off: by how much of themselves all values are off that readers find; 0 where they are exact.
    """

    scheme: Scheme
    tensors: Mapping[str, Tensor]
    off: float = 0.0


def save(
    model: nn.Module, folder: PathLike, *, config: Any = None, max_shard_size: int | str = SHARD
) -> None:
    """Writes a model with quantized weights as a folder of Hugging Face's, by compressed-tensors' rules.

    model: a transformers model, or any module that `config` describes, whose quantized parameters are
    QTensors.  folder: written whole, its `config.json` last; weights of an earlier save are removed.
    config: a mapping or a PretrainedConfig, instead of `model.config`.  max_shard_size: bytes of a file of
    weights at most, or a text as "5GB".

    `AutoModel.from_pretrained(folder)`, which needs compressed-tensors, gives a model of floats: the values
    of the QTensors.  What can be stored are the weights of nn.Linear and nn.Embedding in mxfp4, mxfp6_e2m3,
    mxfp8_e4m3, nvfp4, fp8_e4m3 and integers of 2 to 8 bits, symmetric or not, with scales per_tensor,
    per_channel(0) or per_group along the last axis, of fp8_e4m3 per_block too.  Other quantized parameters
    raise NumericsError, which names all of them and what would fit, before anything is written.

    MX and NVFP4 are decompressed to bfloat16: no value of MX changes by that, and NVFP4 becomes
    `q.dequantize(torch.bfloat16)`.  Where all layers have one spec, `quantization_config` says `dequantize`,
    and the model is loaded in its own dtype.  Where they have several, transformers 5.24 decompresses at
    the first call (and with `dequantize=True` takes the first spec for all): with MX or NVFP4 among them
    the dtype of `config.json` is bfloat16, to which transformers rounds the float parameters too; zero
    points, and scales that the dtype would round, are refused; and the class that is loaded must be the one
    that was saved.

    >>> import torch, numerics as nx
    >>> layer, q = torch.nn.Linear(64, 32), nx.quantize(torch.ones(32, 64), "mx6")
    >>> layer.weight = torch.nn.Parameter(q, requires_grad=False)
    >>> save(layer, "folder", config={"model_type": "mine"})
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: compressed-tensors cannot store 1 of 1 quantized parameters: \
weight: it has no mx6; mxfp6_e2m3 would fit.  Nothing was written
    """
    check_model("compressed_tensors.save", model)
    said = config_of(model, config)
    layers = _layers(model)
    kind = _model_type(model, layers)
    said |= {
        "dtype": str(kind).removeprefix("torch."), "architectures": [base_of(model).__name__],
        "quantization_config": quantization_config(model, layers),
    }  # fmt: skip
    said.pop("torch_dtype", None)  # its older name
    texts = {CONFIG: json.dumps(said, indent=2, sort_keys=True) + "\n"}
    if getattr(model, "generation_config", None) is not None and model.can_generate():  # type: ignore[operator]
        texts["generation_config.json"] = model.generation_config.to_json_string()  # type: ignore[union-attr, operator]
    write_folder(folder, _tensors(model, layers), texts, max_shard_size)


# ---- which layers ------------------------------------------------------------------------------------


def _layers(model: nn.Module) -> dict[str, Stored]:
    """The quantized layers by name; of tied ones the first.  Raises NumericsError for what has no place."""
    found: dict[str, Stored] = {}
    reasons: dict[str, list[str]] = {}
    _check_weights_only(model)
    quantized = {
        name: place for name, place in stored(model).items() if isinstance(place.tensor, TensorQTensor)
    }
    if not quantized:
        raise NumericsError(
            f"{type(model).__name__} has no quantized parameters: put nn.Parameter(nx.quantize(w, spec), "
            "requires_grad=False) in the place of its weights"
        )
    seen: set[int] = set()
    for name, place in quantized.items():
        q = cast(TensorQTensor, place.tensor)
        try:
            layer = _layer_of(name, place)
            if id(q) not in seen:
                found[layer] = _stored(q)
            seen.add(id(q))
        except Unfit as why:
            reasons.setdefault(str(why), []).append(name)
    if not reasons:
        _check_together(model, found, reasons)
    if reasons:
        count = len({name for names in reasons.values() for name in names})
        told = "; ".join(f"{folded(names)}: {why}" for why, names in reasons.items())
        many = f"{count} of {len(quantized)} quantized parameters"
        raise NumericsError(f"{METHOD} cannot store {many}: {told}.  Nothing was written")
    return found


def _check_weights_only(model: nn.Module) -> None:
    """Raises NumericsError for a wrapped model that is not frozen, or that quantizes what it computes."""
    learning = folded(f"{owner}.{leaf}" if owner else leaf for owner, module in model.named_modules()
                      for leaf in getattr(type(module), "numerics_leaves", ()))  # fmt: skip
    if learning:
        raise NumericsError(
            f"{learning}: quantized when they are read; nx.freeze(model) makes QTensors of them"
        )
    if computed := [one.name for one in quantizers(model)]:
        raise NumericsError(
            f"{folded(computed)}: tensors that are computed are quantized too, and this stores weights only; "
            "plan them without activations= and outputs="
        )


def _layer_of(name: str, place: Place) -> str:
    """The name of the layer; raises Unfit where it is none that compressed-tensors serves."""
    module, kind = place.module, base_of(place.module).__name__
    if not isinstance(module, (nn.Linear, nn.Embedding)) or kind == "NonDynamicallyQuantizableLinear":
        raise Unfit(f"it serves nn.Linear and nn.Embedding, not {kind}; leave it in float")
    if place.leaf != "weight":
        raise Unfit(f"it stores weights, not a {place.leaf}; leave it in float")
    return name.rpartition(".")[0]


def _check_together(model: nn.Module, found: Mapping[str, Stored], reasons: dict[str, list[str]]) -> None:
    """Of several groups, what transformers would load with other values."""
    if len({layer.scheme for layer in found.values()}) == 1:
        return
    kind = _model_type(model, found)
    short = str(kind).removeprefix("torch.")
    for name, layer in found.items():
        if not layer.scheme.symmetric:
            why = "zero points beside layers of another spec cannot be loaded; give all layers one spec"
            reasons.setdefault(why, []).append(f"{name}.weight")
        scale = layer.tensors["weight_scale"]
        if scale.dtype == torch.float32 and not torch.equal(scale.to(kind).float(), scale):
            why = (
                f"beside layers of another spec its scales would be rounded to {short}; give all layers one "
                f"spec, or scale_type={short!r}"
            )
            reasons.setdefault(why, []).append(f"{name}.weight")


def _model_type(model: nn.Module, layers: Mapping[str, Stored]) -> torch.dtype:
    """What the model is loaded in: bfloat16 where layers are only decompressed when it runs, and to that."""
    schemes = {layer.scheme for layer in layers.values()}
    if len(schemes) > 1 and any(scheme.halves for scheme in schemes):
        return torch.bfloat16
    return float_type(model)


# ---- what each layer becomes -------------------------------------------------------------------------


def stored_weight(name: str, q: TensorQTensor) -> Stored:
    """A weight in compressed-tensors' layout; raises NumericsError, naming it, where it has none."""
    try:
        return _stored(q)
    except Unfit as why:
        raise NumericsError(f"{METHOD} cannot store {name}: {why}") from None


def _stored(q: TensorQTensor) -> Stored:
    """A weight in compressed-tensors' layout; raises Unfit where it has none that decodes to its values."""
    if q.ndim != 2:
        raise Unfit(f"it stores matrices, not {q.ndim} axes; leave it in float")
    if q.original == "float64":
        raise Unfit("its values are computed in float64; quantize a float32 weight")
    if q.spec.blocked:
        return _of_blocks(q)
    d = q.spec.element
    if d is fp8_e4m3:
        return Stored(Scheme.of("float-quantized", num_bits=8, type="float", **_strategy(q)), {
            "weight": q.codes.view(torch.float8_e4m3fn), "weight_scale": _scales(q),
        })  # fmt: skip
    if d.kind == "integer" and d.bits in BITS:
        return _of_integers(q)
    raise _no_format(d)


def _no_format(d: Dtype) -> Unfit:
    return Unfit(f"it has no {d.name}; {FITS.get(d.name, f'one of {ALL}')} would fit")


# ---- blocks ------------------------------------------------------------------------------------------


def _of_blocks(q: TensorQTensor) -> Stored:
    d, rows = q.spec.block, q.shape[0]
    store = _BLOCKS.get(d)
    if store is None:
        raise _no_format(d)
    if q.spec.blocking(tuple(q.shape)).axis != 1:
        raise Unfit(f"its blocks lie along axis {q.axis}, not the last one; quantize with axis=-1")
    if q.shape[1] % d.block:
        raise Unfit(
            f"its rows of {q.shape[1]} are not whole blocks of {d.block}; an integer per_channel(0) would fit"
        )
    return store(q, rows)


def _mx(bits: int, packed: str) -> Callable[[TensorQTensor, int], Stored]:
    """MX: codes as they lie here, and the E8M0 byte of each block."""
    beside = {
        "num_bits": bits,
        "type": "float",
        "strategy": "group",
        "group_size": 32,
        "scale_dtype": "torch.uint8",
    }

    def store(q: TensorQTensor, rows: int) -> Stored:
        _check_scales(q)
        codes = {"weight": q.codes.view(torch.float8_e4m3fn)} if bits == 8 else {
            "weight_packed": q.packed.view(rows, -1)
        }  # fmt: skip
        return Stored(Scheme.of(packed, halves=True, **beside), {**codes, "weight_scale": _there(q.shared)})

    return store


def _check_scales(q: TensorQTensor) -> None:
    """What compressed-tensors reads otherwise: NaN as 2**128, and in bfloat16 nothing below 2**-133."""
    scale = _there(q.shared)
    if bool((scale == NAN_SCALE).any()):
        raise Unfit("it holds blocks of NaN, which are read as Inf; leave it in float")
    least = 3 if q.format is mxfp8_e4m3 else 0  # of a code: 2**-9 of it is a bfloat16
    if bool((scale < least).any()) and not torch.equal(
        q.dequantize(torch.bfloat16).float(), q.dequantize().float()
    ):
        raise Unfit("it holds values below 2**-133, which bfloat16 does not have; leave it in float")


def inverse_of(scale: torch.Tensor) -> torch.Tensor:
    """The float32 whose rounded inverse is that scale, or the rounded inverse where there is none.

    One scale in seven has none: inverses of float32 lie further apart than float32 above a root of 2.
    """
    inverse = scale.reciprocal()
    for beside in (inverse, *(torch.nextafter(inverse, inverse * by) for by in (0.5, 2.0))):
        if torch.equal(beside.reciprocal(), scale):
            return beside
    return inverse


def _of_nvfp4(q: TensorQTensor, rows: int) -> Stored:
    """NVFP4: codes and E4M3 scales as they lie here; the tensor's scale divides there."""
    due = _there(q.tensor_scale).reshape(1)
    inverse = inverse_of(due)
    if not bool(torch.isfinite(inverse).all()):
        raise Unfit("its tensor scale has no inverse in float32; leave it in float")
    beside = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    scheme = Scheme.of("nvfp4-pack-quantized", halves=True, scale_dtype="torch.float8_e4m3fn", **beside)
    return Stored(scheme, {
        "weight_packed": q.packed.view(rows, -1), "weight_global_scale": inverse,
        "weight_scale": _there(q.shared).view(torch.float8_e4m3fn),
    }, abs(float(inverse.reciprocal().double() / due.double()) - 1))  # fmt: skip


_BLOCKS: dict[Block, Callable[[TensorQTensor, int], Stored]] = {
    mxfp4: _mx(4, "mxfp4-pack-quantized"), mxfp6_e2m3: _mx(6, "mxfp6-pack-quantized"),
    mxfp8_e4m3: _mx(8, "mxfp8-quantized"), nvfp4: _of_nvfp4,
}  # fmt: skip


# ---- single numbers ----------------------------------------------------------------------------------


def _strategy(q: TensorQTensor) -> dict[str, Any]:
    """compressed-tensors' words for who shares a scale."""
    scheme, (rows, columns) = q.spec.scheme_of_elements, q.shape
    axis = q.spec.partition(tuple(q.shape)).axis
    if scheme.kind == "per_tensor":
        return {"strategy": "tensor"}
    if scheme.kind == "per_channel" and axis == 0:
        return {"strategy": "channel"}
    if scheme.kind == "per_group" and axis == 1 and columns % (scheme.size or 1) == 0:
        return {"strategy": "group", "group_size": scheme.size}
    tile = scheme.block
    if tile is not None and q.spec.element is fp8_e4m3 and columns % tile[1] == 0:
        return {"strategy": "block", "block_structure": list(tile)}
    raise Unfit(
        f"{scheme!r} of {rows} x {columns} has no place; per_tensor, per_channel(0) or whole groups along "
        "the last axis would fit, and of fp8_e4m3 whole blocks of columns (the last rows may be fewer)"
    )


def _scales(q: TensorQTensor) -> Tensor:
    """The scales in the shape that they have there: [1], [rows, 1], [rows, groups], or one of each block.

    Those of the type that the values have are stored as that, as compressed-tensors itself has them: a code
    times its scale is rounded to it once, there as here.
    """
    scale = _there(q.shared)
    if (kind := q.spec.stored_scale_type(q.original)) == q.original and kind in ("bfloat16", "float16"):
        scale = scale.to(getattr(torch, kind))
    if scale.ndim == 0:
        return scale.reshape(1)
    return scale.reshape(q.shape[0], -1) if scale.ndim == 1 else scale


def _of_integers(q: TensorQTensor) -> Stored:
    """Integers: words of 32 bits, each row from a word on, and the smallest code is 0."""
    d, strategy = q.spec.element, _strategy(q)
    zero = _zero_points(q, d)
    zeros: dict[str, Any] = {} if zero is None else {"zp_dtype": "torch.int8"}
    scheme = Scheme.of(
        "pack-quantized", num_bits=d.bits, type="int", symmetric=zero is None, **zeros, **strategy
    )  # fmt: skip
    beside = {"weight_scale": _scales(q), "weight_shape": torch.tensor(list(q.shape), device=q.packed.device)}
    if zero is not None and strategy["strategy"] == "tensor":
        beside["weight_zero_point"] = (zero - _offset(d)).to(torch.int8).reshape(1)
    elif zero is not None:  # the rows are packed, not the groups
        beside["weight_zero_point"] = _words(zero.reshape(q.shape[0], -1).t(), d.bits).t().contiguous()
    codes = q.codes ^ _offset(d) if d.signed else q.codes
    return Stored(scheme, {"weight_packed": _words(codes, d.bits), **beside})


def _offset(d: Element) -> int:
    """What is added to a signed code, so that the smallest is 0."""
    return 1 << (d.bits - 1)


def _zero_points(q: TensorQTensor, d: Element) -> Tensor | None:
    """The zero points, counted from the smallest code; None where that is the middle."""
    if q.zero_point is None:
        return None if d.signed else torch.zeros_like(_there(q.shared), dtype=torch.int32)
    zero = q.zero_point + (_offset(d) if d.signed else 0)
    if zero.is_floating_point():
        raise Unfit("its zero points are floats; zero_point_type='int32' would fit")
    if bool(((zero < 0) | (zero >= 1 << d.bits)).any()):
        raise Unfit(f"its zero points are beyond the codes of {d.name}; leave it in float")
    return zero


def _words(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, n] as int32 [rows, ceil(n * bits / 32)]: a string of bits each row, code 0 lowest."""
    rows, count = codes.shape
    padded = -(-count // WORD) * WORD  # so many codes fill whole words
    whole = torch.zeros((rows, padded), dtype=torch.uint8, device=codes.device)
    whole[:, :count] = codes
    if bits == int8.bits:
        packed = whole
    else:
        from numerics.formats.integers import integer_format

        packed = integer_format(bits, signed=False).pack(whole).view(rows, -1)
    return packed.view(torch.int32)[:, : -(-count * bits // WORD)].contiguous()


def _there(part: Tensor | None) -> Tensor:
    """A part that the format has."""
    assert part is not None
    return part


# ---- the folder --------------------------------------------------------------------------------------


def quantization_config(model: nn.Module, layers: Mapping[str, Stored]) -> dict[str, Any]:
    """Returns what `config.json` says: a group for each scheme, its layers by name, the layers of floats."""
    tied = {name.rpartition(".")[0] for name, place in parameters(model).items()
            if isinstance(place.tensor, TensorQTensor)}  # fmt: skip
    ignore = [name for name, module in model.named_modules()
              if isinstance(module, nn.Linear) and name not in tied]  # fmt: skip
    return config_of_schemes({name: layer.scheme for name, layer in layers.items()}, ignore)


def config_of_schemes(schemes: Mapping[str, Scheme], ignore: Sequence[str]) -> dict[str, Any]:
    """Returns the same of layers whose schemes are known; ignore: the names of layers of floats."""
    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    alone = len(groups) == 1
    return {
        "quant_method": METHOD, "quantization_status": "compressed", "global_compression_ratio": None,
        "kv_cache_scheme": None, "dequantize": alone,
        "format": next(iter(groups)).format if alone else "mixed-precision",
        "ignore": list(ignore),
        "config_groups": {f"group_{k}": _group(*group) for k, group in enumerate(groups.items())},
    }  # fmt: skip


def _group(scheme: Scheme, targets: list[str]) -> dict[str, Any]:
    return {
        "targets": targets, "weights": json.loads(scheme.weights), "format": scheme.format,
        "input_activations": None, "output_activations": None,
    }  # fmt: skip


def _tensors(model: nn.Module, layers: Mapping[str, Stored]) -> dict[str, Tensor]:
    """What the file has, by name: layers by their parts, all else as it is, tied tensors once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    dropped = _dropped(model)
    for name, place in stored(model).items():
        layer = name.rpartition(".")[0]
        if isinstance(place.tensor, TensorQTensor):
            if layer in layers:
                found |= {f"{layer}.{part}": x.contiguous() for part, x in layers[layer].tensors.items()}
        elif name not in dropped and id(place.tensor) not in seen:
            seen.add(id(place.tensor))
            found[name] = place.tensor.detach().contiguous()
    return found


def _dropped(model: nn.Module) -> set[str]:
    """The names that transformers ties to others when it loads, of those that are tied here."""
    every = parameters(model)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return {
        name for name, source in tied.items()
        if name in every and source in every and every[name].tensor is every[source].tensor
    }  # fmt: skip
