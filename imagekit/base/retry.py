"""Trying again: how often, how long apart, and only for temporary failures."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from imagekit.base.clock import SYSTEM_CLOCK, Clock
from imagekit.base.errors import ImagekitError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long apart to try again.

    Attributes:
        attempts: Tries in all, the first included.
        first_delay_seconds: Wait before the second try; doubled each time.
        longest_delay_seconds: No wait is longer, but for one that the server asked for.
        longest_server_delay_seconds: A server's Retry-After is honoured up to this.
    """

    attempts: int = 6
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 30.0
    longest_server_delay_seconds: float = 300.0

    def delay_seconds(self, failures: int, error: ImagekitError, *, jitter: float) -> float:
        """Return the wait after the ``failures``-th failure; ``jitter`` is in [0, 1)."""
        if error.retry_after_seconds is not None:
            return min(max(error.retry_after_seconds, 0.0), self.longest_server_delay_seconds)
        backoff = min(self.first_delay_seconds * 2.0 ** (failures - 1), self.longest_delay_seconds)
        return backoff * (0.5 + jitter / 2)


def retry(
    call: Callable[[], Result],
    *,
    policy: RetryPolicy,
    clock: Clock = SYSTEM_CLOCK,
    on_retry: Callable[[ImagekitError, float], None] | None = None,
) -> Result:
    """Return what ``call`` returns, trying again while its failure is temporary.

    Args:
        on_retry: Told of the failure and of the seconds until the next try.

    Raises:
        ImagekitError: The last failure, or the first one that is not temporary.
    """
    failures = 0
    while True:
        try:
            return call()
        except ImagekitError as error:
            failures += 1
            if not error.temporary or failures >= policy.attempts:
                raise
            delay_seconds = policy.delay_seconds(failures, error, jitter=random.random())
            if on_retry is not None:
                on_retry(error, delay_seconds)
        clock.sleep(delay_seconds)
