"""The judge of products: inputs whose sum has one right answer, in whatever order it is added.

`claim` says what a kernel promises, `problem` is one product and its exact value, `certificate` says
which of its results every right kernel must give, `inputs` and `cases` make the problems, `trial` asks them,
`deviations` knows the usual faults, `fingerprint` describes how a kernel adds, by the probes of `adding`.
"""
