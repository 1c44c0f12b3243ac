"""Whether a gain carries over to text that no decision has used: the part `confirmation` of the held-out text.

A search decides on one validation text again and again, so changes can fit it: by chance, or because code carries its
answers. A would-be keep is therefore asked once more on text that was never used. Candidate and best are compared as
the trained models they are, document by document, so that nothing but the text differs from the comparison before.

The text is cut into pieces. Every question takes the next one, and only yes or no leaves this file: a figure that a
proposer sees could be fitted like val_bpb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from mlx_autoresearch.data.prepared import PreparedData
from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.metric.bits import DocumentBits
from mlx_autoresearch.metric.rows import scorable
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.trials.trial import TrialFailed

from .candidate import Candidate
from .home import Search
from .measure import text_bits
from .view import View

YES = "confirmed on text that was never used"
NO = "does not carry over: on text that no decision has used, the gain is not there"

_ENOUGH = 16  # documents: the scatter of fewer says little
_PIECES = 32  # wanted: about as many as a night asks for
_LEAST_SHARE = 0.25  # of the tokens that val_bpb is measured on, in one piece
_DOUBT = 2.0  # standard errors by which the text may explain what is missing
_SHARE = 0.5  # of the gain on the validation text, which the confirmation text has to allow


def pieces(data: PreparedData, eval_tokens: int) -> list[np.ndarray]:
    """The confirmation text in disjoint pieces, each an array of documents' indices; none where the text is too short.

    A piece has about `eval_tokens` tokens where that gives 32 pieces, otherwise less, down to a quarter of that, and
    16 documents at least. Neighbouring documents go to different pieces, so each is spread over the text.
    """
    if "confirmation" not in data.manifest.splits:
        return []
    tokens = scorable(data.split("confirmation").offsets)
    documents = np.flatnonzero(tokens > 0)
    total = int(tokens.sum())
    count = max(total // eval_tokens, min(_PIECES, int(total / (_LEAST_SHARE * eval_tokens))), 1)
    count = min(count, len(documents) // _ENOUGH)
    return [documents[i::count] for i in range(count)]


@dataclass(frozen=True)
class Gain:
    """gain: by how many bits per byte a candidate is better than the best on a piece. error: its standard error."""

    gain: float
    error: float

    @classmethod
    def of(cls, candidate: Sequence[DocumentBits], best: Sequence[DocumentBits]) -> Gain:
        """From the models of both, trained with the same seeds and scored on the same documents.

        The gain is a ratio of two sums over documents, bits saved by bytes. Its standard error is that of the ratio
        estimator, from the scatter of the documents (Cochran, Sampling Techniques, 3rd edition, 1977, section 6.4).
        Scatter over seeds is no part of it: these models are the ones whose val_bpb has decided.
        """
        nats = np.mean([b.nats - c.nats for c, b in zip(candidate, best, strict=True)], axis=0)  # (n,)
        saved, size = nats / math.log(2), best[0].bytes.astype(float)
        gain = float(saved.sum() / size.sum())
        rest, n = saved - gain * size, len(size)
        return cls(gain, math.sqrt(n / (n - 1) * float(rest @ rest)) / float(size.sum()))

    def contradicts(self, gain: float, margin: float) -> bool:
        """Whether this text speaks against a keep. gain: of the same models on the validation text.

        A change that was kept for a gain is contradicted where even two standard errors more than what is measured
        here stay below half of it. Say the change gains as much here as there, and the error of both texts is alike:
        then what is compared scatters by 1.1 standard errors around a positive value, and a true gain is rejected in
        fewer than 1 of 25 cases, fewer by far where the gain is larger than its error. A gain that only the
        validation text has is always rejected unless it is within the text's own noise, four standard errors.
        margin: for a change that was kept as equal and simpler, how much worse still counts as equal; else 0.
        """
        wanted = -margin if margin else min(_SHARE * gain, gain)
        return self.gain + _DOUBT * self.error < wanted


def text_of(search: Search) -> list[np.ndarray]:
    """The pieces of a search's confirmation text; none where keeps cannot be confirmed."""
    return pieces(find_data(search.config.start), search.config.start.evaluate.eval_tokens)


def carries_over(
    search: Search,
    text: Sequence[np.ndarray],
    models: tuple[Candidate, Candidate],
    pairs: Sequence[tuple[Trial, Trial]],
    folder: Path,
    view: View,
    *,
    margin: float,
) -> bool | None:
    """Whether the next piece of `text` bears a keep out.

    models: the candidate and the best. pairs: their trials with the same seeds. folder: of the experiment in hand.
    margin: as in `contradicts`. When all pieces have been used the first one is next, and the view says so. A best that
    cannot be scored on this text confirms nothing either: None. Raises TrialFailed when the candidate cannot be scored.
    """
    asked = sum(r.decides and r.confirmed is not None for r in search.ledger.records())
    if asked == len(text):
        view.say(f"all {len(text)} pieces of the confirmation text have been used: it begins again with the first")
    documents = text[asked % len(text)]
    candidate = [text_bits(search, models[0], ours, documents, folder, view) for ours, _ in pairs]
    try:
        best = [text_bits(search, models[1], theirs, documents, folder, view) for _, theirs in pairs]
    except TrialFailed as failure:
        view.say(f"not confirmed: the best cannot be scored on the confirmation text ({failure})")
        return None
    gain = fmean(theirs.val_bpb - ours.val_bpb for ours, theirs in pairs)
    return not Gain.of(candidate, best).contradicts(gain, margin)


def announce(search: Search, view: View) -> None:
    """Say it where keeps cannot be confirmed."""
    if not text_of(search):
        view.say(
            f"the text is too short to confirm keeps: its confirmation part has less than {_ENOUGH} documents; "
            "decisions rest on the validation text alone"
        )
