"""A fuzzer of our own: nobody's input may do worse than raise NumericsError.

A case is a line of Python over the words of words.py, drawn by Hypothesis (targets*.py) and run by
a worker process (worker.py) that may die of it; the judge (judge.py) has Hypothesis shrink what is
wrong and keeps it as a script.  `python -m tests.fuzz --minutes 60` hunts, `python -m tests.fuzz
--replay FILE` runs a script again, `python -m tests.fuzz.robots` interrupts, forks and kills.
"""
