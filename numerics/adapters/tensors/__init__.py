"""The way back: QTensors as a host's own tensors, and those as QTensors, without a bit changed.

One module a host, and its two functions under the adapter's name too: `numerics.adapters.torchao.to_host(q)`
and `.from_host(x)`.  torchao's is `numerics.interop.torchao`, which reads its files, too.
Codes and scales are moved, never computed: what a host's tensor cannot hold, or a
QTensor cannot, is a NumericsError that says so.  docs/adapters.md §8 lists what goes each way.
"""
