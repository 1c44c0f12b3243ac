"""Float64 definitions of the three softcapped_cross_entropy kernels; a softcap of 0 stands for none."""

import numpy as np


def forward(logits, labels, softcap):
    """With s = softcap · tanh(logits / softcap): lse = log sum_v e^(s_v), loss = lse - s_label. logits: (N, V)."""
    s, _ = _softcapped(logits, softcap[0])
    top = s.max(axis=1)
    lse = top + np.log(np.exp(s - top[:, None]).sum(axis=1))
    return {"loss": lse - s[np.arange(len(s)), labels], "lse": lse}


def backward(logits, labels, lse, d_loss, d_lse, softcap):
    """d_logits = (d_loss (e^(s - lse) - onehot(label)) + d_lse e^(s - lse)) ds/dlogits, for any lse."""
    s, slope = _softcapped(logits, softcap[0])
    softmax, onehot = np.exp(s - lse[:, None]), np.eye(s.shape[1])[labels]
    return {"d_logits": ((d_loss + d_lse)[:, None] * softmax - d_loss[:, None] * onehot) * slope}


def loss_and_gradient(logits, labels, scale, softcap):
    """The loss, and the gradient of scale · loss in the logits."""
    given = forward(logits, labels, softcap)
    gradient = backward(logits, labels, given["lse"], scale, np.zeros_like(scale), softcap)
    return {"loss": given["loss"], **gradient}


def _softcapped(z, softcap):
    if softcap == 0:
        return z, np.ones_like(z)
    t = np.tanh(z / softcap)
    return softcap * t, 1 - t**2
