"""Proof of the adapters beside the hosts themselves: `make adapters`, in an environment of its own.

`hard.py` has the numbers, `cases/` what is compared, `test_bits.py` compares it with the stock host,
`test_correct.py` asks of each fault in docs/adapters.md what both modes answer,
`suites.py` runs the hosts' own tests stock and substituted, `timing.py` measures.
"""
