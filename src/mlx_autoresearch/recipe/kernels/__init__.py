"""The differentiable functions over custom_kernels/: one file an operation."""
