"""Triton: the shared arithmetic compiled for NVIDIA's and AMD's GPUs, on torch tensors."""

from numerics.backends.gpu.backend import GpuBackend

BACKEND = GpuBackend()
