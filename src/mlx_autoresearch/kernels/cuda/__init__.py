"""Metal kernels on NVIDIA GPUs: a textual translation (translation.py) behind headers that speak Metal (shim/)."""

from .translation import translate

__all__ = ["translate"]
