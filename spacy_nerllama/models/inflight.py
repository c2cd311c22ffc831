"""Many requests in flight to a server, answers in order: an event loop in a thread, behind a generator."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

from ..errors import ModelUnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AHEAD = 8
"""So many times as many requests as may be in flight are taken ahead of the one that is answered next."""
PATIENCE = 2.0
"""Seconds in which coroutines have to end when they are cancelled; they are left behind if they do not."""


def in_order(
    items: Iterable[Item],
    answer: Callable[[Item], Coroutine[Any, Any, Answer]],
    at_once: int,
    max_failures: int,
    outage: Callable[[Exception], ModelUnavailableError],
    close: Callable[[], Awaitable[Any]],
) -> Iterator[Answer | Exception]:
    """Ask a server about items, several at once, and give its answers in their order.

    An outage is not mistaken for items that fail: a ConnectionError comes out once a later answer has come in, or
    when there is none left to wait for; `max_failures` of them in a row end the run. (Other errors are an item's
    own.)

    The event loop has a thread of its own, so it works where one is running already, as in a notebook. The
    caller's thread takes the items and waits, and an interrupt finds it there. Nothing outlives the generator.

    items: Taken as a stream in the caller's thread, a bounded number ahead.
    answer: Asks about an item, in the event loop.
    at_once: How many may be asked about at once.
    max_failures: So many ConnectionErrors in a row, in the order in which they come in, are an outage.
    outage: Makes the error to raise in an outage from the last one.
    close: Called in the event loop when all is over.
    RETURNS: The answer to each item, or the error that it failed with.
    RAISES: ModelUnavailableError in an outage, or when `answer` raises it, after the answers to items that come
        before the first that has none.
    """
    slots = asyncio.Semaphore(at_once)
    ahead = max(AHEAD * at_once, max_failures)
    pending: deque[futures.Future[Answer | Exception]] = deque()
    failures = 0
    broken: ModelUnavailableError | None = None

    async def ask(item: Item) -> Answer | Exception:
        nonlocal failures, broken
        async with slots:
            if broken is not None:
                return broken
            try:
                answered = await answer(item)
            except ModelUnavailableError as error:
                broken = broken or error
                return error
            except ConnectionError as error:
                failures += 1
                if failures >= max_failures:
                    broken = broken or outage(error)
                return error
            except Exception as error:
                return error
        failures = 0
        return answered

    def is_ready() -> bool:
        head = pending[0]
        return head.done() and not (isinstance(head.result(), ConnectionError) and (failures or broken))

    def take() -> Answer | Exception:
        while not is_ready():
            running = [future for future in pending if not future.done()]
            if broken is not None:
                raise broken
            if not running:
                break
            futures.wait(running, timeout=1, return_when=futures.FIRST_COMPLETED)  # Windows needs the timeout
        return pending.popleft().result()

    with _event_loop(close) as loop:
        for item in items:
            pending.append(asyncio.run_coroutine_threadsafe(ask(item), loop))
            while pending and (len(pending) >= ahead or is_ready()):
                yield take()
        while pending:
            yield take()


@contextmanager
def _event_loop(close: Callable[[], Awaitable[Any]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread. At the end its tasks are cancelled, and `close` is called in it."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="nerllama-requests", daemon=True)
    thread.start()

    try:
        yield loop
    finally:
        with suppress(futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(end_tasks(close), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        if not thread.is_alive():
            loop.close()


async def end_tasks(close: Callable[[], Awaitable[Any]]) -> None:
    """Cancel all other tasks of the event loop, and call `close` when they have ended."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)  # again: a task may overhear it
    await close()
