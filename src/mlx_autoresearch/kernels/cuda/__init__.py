"""Metal kernels on NVIDIA GPUs: a textual translation (translation.py) behind headers that speak Metal (shim/)."""

from .translation import as_it_is, translate

__all__ = ["as_it_is", "translate"]
