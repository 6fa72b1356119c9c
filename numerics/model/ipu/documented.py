"""Which operators Ryzen AI lists for which configuration: the table of its `ops_support.rst`, as a fact."""

from __future__ import annotations

from typing import Final

COLUMNS: Final = {"B": "bf16", "6": "a16w8", "8": "a8w8", "x": "xint8"}
_ROWS: Final = {
    "B68x": "Add AveragePool BatchNormalization Concat Constant ConstantOfShape Conv DepthToSpace Div Expand "
    "Flatten Gemm GlobalAveragePool Identity InstanceNormalization MatMul Max MaxPool Min Mul Pad "
    "Reciprocal ReduceMax Reshape Shape Slice Sqrt Squeeze Sub Transpose Unsqueeze Upsample",
    "68x": "Clip Gelu GlobalMaxPool GroupNormalization LeakyRelu Relu Softmax",
    "Bx": "Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil CumSum Equal "
    "Erf Floor Greater Less Log Neg Or Pow Round Sign Tile",
    "B": "Einsum Gather GridSample LSTM Mod Not ScatterND Size Xor",
    "x": "Celu GreaterOrEqual LayerNormalization LessOrEqual Mish Range STFT Shrink Softsign ThresholdedRelu",
    "B68": "ConvTranspose Sigmoid Sin",
    "68": "Cos",
    "6x": "Elu TopK",
    "B6": "Exp GatherElements Split",
    "8": "HardSigmoid",
    "8x": "HardSwish",
    "B8x": "ReduceMean ReduceMin ReduceSum Resize",
    "B6x": "Tanh Where",
}  # fmt: skip
DOCUMENTED: Final = {
    operator: tuple(COLUMNS[letter] for letter in letters)
    for letters, operators in _ROWS.items()
    for operator in operators.split()
}
"""Operator of ONNX -> the configurations that Ryzen AI lists it for."""


def lists(operator: str, config: str) -> bool:
    """Does Ryzen AI list the operator?  HardSigmoid counts for xint8: it is what the device makes of Sigmoid.

    >>> lists("Softmax", "xint8"), lists("ConvTranspose", "xint8"), lists("HardSigmoid", "xint8")
    (True, False, True)
    """
    return config in DOCUMENTED.get(operator, ()) or (operator, config) == ("HardSigmoid", "xint8")
