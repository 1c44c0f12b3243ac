"""The Python side of custom_kernels/: where kernels are, how they are called, and whether they are right."""
