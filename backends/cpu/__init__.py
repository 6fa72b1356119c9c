"""Numba: the shared arithmetic as vector code for the CPU at hand, on threads."""

from numerics.backends.cpu import target
from numerics.backends.cpu.executor import CpuExecutor
from numerics.backends.host.backend import HostBackend

target.check()

EXECUTOR = CpuExecutor()
BACKEND = HostBackend(EXECUTOR)
