"""Laws, and the trials that ask them: what a right kernel does, one file a kind of kernel.

A law judges what was observed and gives None or the simplest counterexample.  A trial gives a target
some inputs and asks its laws of what comes back.
"""
