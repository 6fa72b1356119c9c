"""Known deviations of kernels, by name: alone or several at once, they say what a wrong kernel computes."""
