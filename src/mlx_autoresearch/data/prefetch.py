"""A background thread that keeps batches ready, so that the training step never waits for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Resumable(Protocol[Item_co]):
    """An iterator that can say where it stands; `PackedBatches` is one."""

    def __next__(self) -> Item_co: ...

    def state_dict(self) -> dict[str, Any]: ...


class Prefetcher(Iterator[Item], Generic[Item]):
    """Yields the items of `iterator` in order; one thread makes up to `depth` of them ahead.

    An exception of `iterator` is raised by `next` at the same item, and again at every later call. Use it in a `with`
    block or call `close`. Raises `ValueError` for a depth below 1.
    """

    def __init__(self, iterator: Resumable[Item], depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"[Prefetcher] depth must be at least 1, got {depth}")
        self._iterator = iterator
        self._state = iterator.state_dict()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._pending: deque[Future[tuple[Item, dict[str, Any]]]] = deque()
        for _ in range(depth):
            self._pending.append(self._thread.submit(self._produce))

    def _produce(self) -> tuple[Item, dict[str, Any]]:
        return next(self._iterator), self._iterator.state_dict()

    def __next__(self) -> Item:
        if not self._pending:
            raise ValueError("[Prefetcher] next() after close()")
        # The head leaves the queue only once its item is in hand: Ctrl-C while waiting loses no item.
        item, self._state = self._pending[0].result()
        self._pending.popleft()
        self._pending.append(self._thread.submit(self._produce))
        return item

    def state_dict(self) -> dict[str, Any]:
        """The iterator's state as of the items handed out, not of those made ahead."""
        return self._state

    def close(self) -> None:
        """Stops the thread and waits for the item being made; a second call does nothing."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def __enter__(self) -> Prefetcher[Item]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
