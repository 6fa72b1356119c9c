"""Where arithmetic runs: one folder an executor.  README.md says how to add one."""
