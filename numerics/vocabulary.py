"""The words of options as enumerations, with the names of AMD Quark (docs/formats.md §10).

A member is a string, its own name, and goes wherever the string goes: `Dtype.int8` is "int8" to every call.
What calls return, store and print holds plain strings.

>>> import numerics as nx
>>> from numerics.vocabulary import Dtype, QSchemeType, RoundType, ScaleType
>>> options = {"scheme": QSchemeType.per_channel, "scale_type": ScaleType.pof2, "rounding": RoundType.floor}
>>> nx.quantize([[0.9, 1.0], [2.1, 7.0]], Dtype.int4, **options).spec
QuantSpec('int4', scheme='per_channel(0)', scale_type='pof2', rounding='floor')
"""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from numerics.formats.arguments import answer_calls
from numerics.formats.errors import NumericsError

__all__ = [
    "DeviceType",
    "Dtype",
    "QSchemeType",
    "QuantizationMode",
    "RoundType",
    "ScaleType",
    "TQTThresholdInitMeth",
    "ZeroPointType",
]


class _Words(StrEnum):
    """An enumeration that says which words it has when it is asked for another."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise NumericsError.unknown(cls.__name__, value, cls.__members__)


class QSchemeType(_Words):
    """Which elements share a scale: `scheme=` of quantize, QuantSpec, observers and learners.

    per_tensor: all of a tensor, as nx.per_tensor().
    per_channel: those of one index of axis 0, as nx.per_channel(); another axis is nx.per_channel(axis).
        AMD Quark has no default and wants ch_axis beside it.
    per_group: alone it raises NumericsError, since no size of a group is everybody's; nx.per_group(size,
        axis=-1) says both.  Quark wants group_size and ch_axis beside it, too; its integers refuse a last
        group that is short, which is taken here.

    >>> import numerics as nx
    >>> nx.quantize([[1.0], [2.0]], "int8", scheme=QSchemeType.per_channel).scale.shape
    (2,)
    >>> nx.quantize([1.0, 2.0], "int8", scheme=QSchemeType.per_group)
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: per_group needs the size of a group: per_group(128), \
or per_group(128, axis=0)
    """

    per_tensor = "per_tensor"
    per_channel = "per_channel"
    per_group = "per_group"


class ZeroPointType(_Words):
    """What a zero point of integers is: `zero_point_type=` with `symmetric=False`.

    int32: an integer within the format's range, of the range of x widened to hold 0.
    float32: a real number within the format's range, not rounded.  AMD Quark does not widen the range of x
        there, and leaves out the format's smallest value, so that only unsigned formats come out right.

    >>> import numerics as nx
    >>> q = nx.quantize([1.0, -0.7], "uint4", symmetric=False, zero_point_type=ZeroPointType.float32)
    >>> round(float(q.zero_point), 4)
    6.1765
    """

    int32 = "int32"
    float32 = "float32"


class Dtype(_Words):
    """The name of a format, wherever a format is asked for; `nx.dtype` gives the format itself (an nx.Dtype).

    int8, uint8, int4, uint4: integers.  NaN becomes 0.  AMD Quark's symmetric scale is amax over half the
        range, 127.5 of int8, so that the largest value clips; here it is amax / 127.
    bfloat16, float16: a plain cast, without a scale unless one is asked for.
    fp8_e4m3, fp8_e5m2: OCP OFP8; saturating, Inf too.
    fp6_e3m2, fp6_e2m3, fp4: OCP MX's elements, of any scheme; Quark's fp4 is refused per tensor, and Inf
        and NaN pass through all three unchanged, where they become the largest value here.
    mx: not a format but a family: blocks with one power of two.  It is refused with the names of its
        members; nx.mx(element, block=32) makes each of them, as Quark's mx_element_dtype says.  Quark's
        default scale is scale_rule="even", here it is the standard's, "floor".
    mx6, mx9: blocks of 16 with microexponents.  A NaN or an Inf makes its whole block NaN; in Quark its
        neighbours keep their values.

    >>> import numerics as nx
    >>> nx.dtype(Dtype.fp4), nx.mx(Dtype.fp4), nx.quantize([1.0, 0.3], nx.mx(Dtype.int8)).dequantize()
    (fp4, mxfp4, [1.0, 0.296875])
    >>> nx.quantize([1.0, 0.3], Dtype.mx)
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: unknown format <Dtype.mx: 'mx'>; it is a family of formats: \
mxfp8_e4m3, mxfp8_e5m2, mxfp6_e3m2, mxfp6_e2m3, mxfp4, mxint8; nx.mx(element, block=32) makes others; \
`numerics formats` lists them all
    """

    int8 = "int8"
    uint8 = "uint8"
    int4 = "int4"
    uint4 = "uint4"
    bfloat16 = "bfloat16"
    float16 = "float16"
    fp8_e4m3 = "fp8_e4m3"
    fp8_e5m2 = "fp8_e5m2"
    fp6_e3m2 = "fp6_e3m2"
    fp6_e2m3 = "fp6_e2m3"
    fp4 = "fp4"
    mx = "mx"
    mx6 = "mx6"
    mx9 = "mx9"


class ScaleType(_Words):
    """What a scale is rounded to before it is used: `scale_type=` of quantize, QuantSpec and observers.

    float: the type of x itself.
    pof2: the smallest power of two not below it, so that nothing clips; the observers nx.observe.Pof2 and
        Pof2MSE find others.  AMD Quark takes the word and does nothing.
    float32 (what holds where none is given), float16, bfloat16: that type.

    >>> import numerics as nx
    >>> float(nx.quantize([1.0, -0.7], "int8", scale_type=ScaleType.pof2).scale)
    0.015625
    """

    float = "float"
    pof2 = "pof2"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class RoundType(_Words):
    """How a number becomes one of the format's: `rounding=` of every call that has one.

    round: to the nearest; a tie goes away from zero, as "half_away".  AMD Quark: toward +Inf, and only in
        its kernel for integers per tensor on a GPU; its others round half to even, whatever is asked for.
    floor: toward -Inf.  Quark: to the nearest, a tie away from zero, in the same kernel.
    half_even: to the nearest; a tie goes to the even code.

    >>> import numerics as nx
    >>> [nx.int8.round([2.5, -2.5], rounding=mode) for mode in RoundType]
    [[3.0, -3.0], [2.0, -3.0], [2.0, -2.0]]
    """

    round = "round"
    floor = "floor"
    half_even = "half_even"


class DeviceType(_Words):
    """Where arithmetic runs: nx.use, and where a model is to run: `device=` of nx.plan and nx.wrap.

    CPU: the backend "cpu", Numba's kernels; a plan has every format.
    IPU: the backend "ipu", ONNX models for AMD's Ryzen AI NPU; it raises NumericsError where ONNX Runtime
        is not installed, and a plan for formats that the NPU has not.  AMD Quark stores the word and never
        reads it.

    >>> import numerics as nx
    >>> with nx.use(DeviceType.CPU) as backend:
    ...     backend.name
    'cpu'
    """

    CPU = "CPU"
    IPU = "IPU"


class QuantizationMode(_Words):
    """How a model is made to quantize: `mode=` of nx.plan and nx.wrap.

    eager_mode: its modules, which stay what they are and read quantized parameters.  AMD Quark puts others
        in their place.
    fx_graph_mode: the graph that torch.export makes of it, which sees inside fused functions.

    >>> import numerics as nx, torch
    >>> x = torch.ones(3, 4)
    >>> made = [nx.wrap(torch.nn.Linear(4, 2), "int8", example=x, mode=mode) for mode in QuantizationMode]
    >>> [isinstance(one, torch.fx.GraphModule) for one in made]
    [False, True]
    """

    eager_mode = "eager_mode"
    fx_graph_mode = "fx_graph_mode"


class TQTThresholdInitMeth(_Words):
    """How the first batch gives TQT's threshold: `init=` of nx.train.TQT, `threshold_init=` of nx.wrap.

    _3SD: |mean| + 3 standard deviations of the population; for weights.
    _LL_J: the least J distance of the distributions (arXiv 1805.07941, Algorithm 1); for activations.
        With few values AMD Quark takes the largest magnitude instead.
    _KL_J: the same, by the name that it has in Quark's code; the documentation there says _LL_J.

    >>> import numerics as nx
    >>> nx.train.TQT("int8", init=TQTThresholdInitMeth._KL_J)
    TQT(int8, init='_KL_J')
    """

    _3SD = "_3SD"
    _LL_J = "_LL_J"
    _KL_J = "_KL_J"


answer_calls(__name__)
