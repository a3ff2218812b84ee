"""Only temporary failures are tried again, after waits that grow to a bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagekit.base.errors import ImagekitError, NetworkError, NotFoundError
from imagekit.base.retry import RetryPolicy, retry


class RecordingClock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return sum(self.waits)

    def now(self) -> float:
        return sum(self.waits)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def failing(*errors: ImagekitError) -> Iterator[ImagekitError]:
    yield from errors


def attempt(errors: Iterator[ImagekitError]) -> str:
    for error in errors:
        raise error
    return "done"


def test_temporary_failures_are_tried_again() -> None:
    clock, told = RecordingClock(), list[str]()
    errors = failing(NetworkError("one"), NetworkError("two"))
    result = retry(lambda: attempt(errors), policy=RetryPolicy(), clock=clock, on_retry=lambda error, _: told.append(error.message))
    assert result == "done"
    assert told == ["one", "two"]
    assert len(clock.waits) == 2
    assert 0.25 <= clock.waits[0] < 0.5 <= clock.waits[1] < 1.0


def test_final_failures_are_not() -> None:
    clock = RecordingClock()
    with pytest.raises(NotFoundError):
        retry(lambda: attempt(failing(NotFoundError("gone"))), policy=RetryPolicy(), clock=clock)
    assert clock.waits == []


def test_attempts_are_counted() -> None:
    clock = RecordingClock()
    errors = failing(*(NetworkError(str(number)) for number in range(10)))
    with pytest.raises(NetworkError, match=r"^2$"):
        retry(lambda: attempt(errors), policy=RetryPolicy(attempts=3), clock=clock)
    assert len(clock.waits) == 2


@pytest.mark.parametrize(
    ("failures", "asked", "expected"),
    [(1, None, 0.375), (2, None, 0.75), (30, None, 22.5), (1, 7.0, 7.0), (1, 1e9, 300.0), (1, -5.0, 0.0)],
)
def test_waits_grow_to_a_bound_and_the_server_is_heard(failures: int, asked: float | None, expected: float) -> None:
    error = NetworkError("slow down", retry_after_seconds=asked)
    assert RetryPolicy().delay_seconds(failures, error, jitter=0.5) == expected
