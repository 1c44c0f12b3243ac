"""The versions of what results can be compared by: how val_bpb is measured, and in which order text is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_autoresearch.errors import UserError


@dataclass(frozen=True)
class Methods:
    """Versions of the metric and of the packing; without arguments, those of this package.

    metric 1: the reference's rows, which crop documents; 2: every token of whole documents once.
    packing 1: the reference's rows, for ever; 2: those until all documents have been read, every token once an epoch.
    Raise one whenever the same settings and text would give another val_bpb.
    """

    metric: int = 2
    packing: int = 2

    def difference(self) -> str:
        """What is not as it is now, as "version 1 of the metric (now 2)"; "" if nothing is."""
        now = CURRENT
        return " and ".join(
            f"version {then} of the {name} (now {current})"
            for name, then, current in (
                ("metric", self.metric, now.metric),
                ("packing", self.packing, now.packing),
            )
            if then != current
        )

    def require_current(self, what: str) -> None:
        """Raise UserError when `what`, which was begun with these, cannot be compared with new results."""
        if difference := self.difference():
            raise UserError(
                f"{what} was begun with {difference}, so new results cannot be compared with its own: "
                "go on with the mlx_autoresearch that began it, or start anew"
            )


FIRST = Methods(metric=1, packing=1)  # of everything that does not say
CURRENT = Methods()
