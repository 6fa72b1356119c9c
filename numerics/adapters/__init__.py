"""Adapters: our kernels under other people's quantizers, with the same results bit for bit.

One module a host, none of which is imported before it is asked for: `torchao`, `compressed_tensors`,
`microxcaling`, `modelopt`, `quark`, `transformers`.  Each has

    install(correct=False), uninstall(): our kernels in the host's places, and the host as it was found
    substituted(correct=False): both, as a context manager
    calls: how often our kernels answered, and how often the host answered itself
    installed(): do our kernels stand in the host now?

docs/adapters.md says which functions are taken, what is passed on, and where a host is wrong.
"""

HOSTS = ("compressed_tensors", "microxcaling", "modelopt", "quark", "torchao", "transformers")
