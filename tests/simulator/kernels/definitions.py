"""Float64 definitions of the small kernels beside this file, which exist to be broken by mutations.py."""

import numpy as np


def row_sum(x):
    return {"y": x.sum(axis=1)}


def matmul(A, B):
    return {"C": A @ B}


def histogram(x):
    return {"counts": np.bincount(x, minlength=16)}


def weigh(x):
    return {"y": x * np.tile([0.1, 0.2, 0.3, 0.4], x.size // 4)}


def rotate(x):
    return {"doubled": 2 * x, "y": np.roll(2 * x.reshape(-1, 64), -1, axis=1).reshape(-1)}


def mirror(x):
    lanes = x.reshape(-1, 32)
    return {"y": (lanes[:, ::-1] + lanes.sum(axis=1, keepdims=True)).reshape(-1)}
