"""The engine that runs custom_kernels/: it finds, describes, launches, verifies, times and chooses kernels."""
