"""Requests to a server: the key that they carry, and when they are sent again. One policy for all servers."""

import os
import random
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import anyio

from ..errors import Errors

Answer = TypeVar("Answer")

FIRST_WAIT = 0.5
"""Seconds: a request is repeated after a random share of this, of twice as much the next time, and so on."""
LONGEST_WAIT = 60.0
"""Seconds: the most that a request waits before it is repeated, and that a server's Retry-After is followed."""


class TemporaryError(Exception):
    """A request that may go when it is sent again, after at least `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def api_key(variable: str | None) -> str | None:
    """Read the API key from an environment variable.

    variable: Its name. None: the server wants no key.
    RETURNS: The key, without white space around it, as a file that it was read from may have left there.
    RAISES: ValueError if it is not set, or cannot be sent.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(Errors.E191.format(name=variable))
    if not (key.isascii() and key.isprintable()):  # what sends it would show it in its error
        raise ValueError(Errors.E197.format(name=variable))
    return key


async def persist(send: Callable[[], Awaitable[Answer]], timeout: float, retries: int) -> Answer:
    """Send a request, again if need be.

    send: Sends it once.
    timeout: Seconds that each attempt may take, to the last byte of the answer.
    retries: How many more attempts there are where one fails by a `TemporaryError` or takes too long.
    RETURNS: What `send` gives.
    RAISES: TemporaryError if all attempts failed; at once what else `send` raises.
    """
    for attempt in range(retries + 1):
        failed = TemporaryError(f"no answer in {timeout:g} seconds")
        with anyio.move_on_after(timeout):
            try:
                return await send()
            except TemporaryError as error:
                failed = error
        if attempt < retries:
            # Full jitter (Brooker, AWS Architecture Blog 2015), so that requests do not come back together.
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 99))
            await anyio.sleep(failed.wait + random.random() * longest)
    raise failed


def is_temporary(status: int) -> bool:
    """Whether a request that was answered with an HTTP status may get another answer when it is sent again."""
    return status in (408, 409, 425, 429) or status >= 500


def retry_after(value: str | None) -> float:
    """Read a Retry-After header (RFC 9110, section 10.2.3).

    value: Seconds or a date, if the server gave any.
    RETURNS: Seconds to wait from now, at most `LONGEST_WAIT`; 0 for what cannot be read.
    """
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(str(value)).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_WAIT)
