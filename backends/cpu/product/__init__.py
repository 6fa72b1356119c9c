"""Products of rows with a quantized matrix, by kernels: the sums of backends/host/product.py."""
