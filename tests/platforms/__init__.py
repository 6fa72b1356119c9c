"""The same bits on other machines: digests of many results, by CPU level, by version, and on aarch64."""
