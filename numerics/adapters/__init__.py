"""Adapters: our kernels under other people's quantizers, with the same results bit for bit.

One module a host, none of which is imported before it is asked for: `torchao`, `compressed_tensors`,
`microxcaling`, `modelopt`, `quark`, `transformers`.  Each has

    install(correct=False), uninstall(): our kernels in the host's places, and the host as it was found
    substituted(correct=False): both, as a context manager
    calls: how often our kernels answered, and how often the host answered itself
    installed(): do our kernels stand in the host now?

docs/adapters.md says which functions are taken, what is passed on, and where a host is wrong.

>>> import numerics as nx
>>> nx.adapters.torchao.installed()
False
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics.formats.arguments import answer_calls
from numerics.formats.forking import reached

if TYPE_CHECKING:  # what __getattr__ imports when it is first asked for
    from numerics.adapters import compressed_tensors as compressed_tensors
    from numerics.adapters import microxcaling as microxcaling
    from numerics.adapters import modelopt as modelopt
    from numerics.adapters import quark as quark
    from numerics.adapters import torchao as torchao
    from numerics.adapters import transformers as transformers

HOSTS = ("compressed_tensors", "microxcaling", "modelopt", "quark", "torchao", "transformers")
__all__ = ["HOSTS", *HOSTS]

if not TYPE_CHECKING:
    __getattr__ = reached(__name__, HOSTS)

answer_calls(__name__)
