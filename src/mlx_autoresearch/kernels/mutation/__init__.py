"""Small, wrong versions of a kernel, and which of them `kernels verify` does not notice."""
