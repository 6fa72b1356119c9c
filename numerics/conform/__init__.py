"""Is a kernel right?  Laws, exhaustive proofs and the data they need."""
