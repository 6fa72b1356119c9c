"""The matrix of the field: other libraries, judged as anybody's kernels are (`make peers`).

claims.py says what a claim is, libraries/ holds what each library claims; judge.py asks the judge,
questions.py asks for the answers to single inputs; report.py writes docs/peers.md from tests/data/peers.json.
"""
