"""NumPy: the shared arithmetic as it stands, on arrays.  Runs wherever NumPy runs."""

from numerics.backends.array.executor import ArrayExecutor
from numerics.backends.host.backend import HostBackend

BACKEND = HostBackend(ArrayExecutor())
