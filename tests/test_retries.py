"""When a request is sent again, and how long it waits before that."""

import asyncio
import email.utils
import time
from typing import Any

import pytest

from spacy_nerllama.models import retries
from spacy_nerllama.models.retries import TemporaryError, api_key, is_temporary, persist, retry_after


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds waited, with the longest draw each time; nothing is really waited for."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(retries.anyio, "sleep", sleep)
    monkeypatch.setattr(retries.random, "random", lambda: 1.0)
    return seconds


def send(*outcomes: Any, n: int) -> Any:
    """Send a request that ends so the first time, so the second time ..."""
    left = iter(outcomes)

    async def once() -> Any:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return asyncio.run(persist(once, 9.0, n))


def test_waits_double_on_top_of_what_the_server_asks_for(waited: list[float]) -> None:
    assert send(*[TemporaryError("busy")] * 2, TemporaryError("busy", 7.0), "answer", n=3) == "answer"
    assert waited == [0.5, 1.0, 7.0 + 2.0]


def test_there_is_a_longest_wait(waited: list[float]) -> None:
    with pytest.raises(TemporaryError, match="busy"):
        send(*[TemporaryError("busy")] * 2000, n=1999)
    assert len(waited) == 1999
    assert max(waited) == waited[-1] == 60.0


def test_other_errors_are_not_repeated(waited: list[float]) -> None:
    with pytest.raises(ValueError, match="refused"):
        send(ValueError("refused"), "answer", n=3)
    assert waited == []


def test_an_attempt_takes_no_longer_than_it_may() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TemporaryError, match=r"^no answer in 0\.01 seconds$"):
        asyncio.run(persist(never, 0.01, 0))


def test_which_answers_may_be_others_the_next_time() -> None:
    assert [status for status in range(400, 600) if is_temporary(status)] == [408, 409, 425, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("nan", 0),
        ("inf", 60),
        ("3600", 60),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 01 Jan 99999 00:00:00 GMT", 0),
    ],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_retry_after_a_date() -> None:
    for seconds, expected in ((30, 30), (300, 60)):
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        assert retry_after(date) == pytest.approx(expected, abs=2)


def test_a_key_is_read_without_the_line_break_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-secret\r\n")
    assert api_key("MY_KEY") == "sk-secret"
    assert api_key(None) is None


@pytest.mark.parametrize("key", ["sk-\nsecret", "sk-sécret", "sk-\x1bsecret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ValueError, match=r"^\[NL197\] .*variable MY_KEY ") as e:
        api_key("MY_KEY")
    assert "cret" not in str(e.value)


def test_a_key_that_is_blank_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "\n")
    with pytest.raises(ValueError, match=r"^\[NL191\] .*variable MY_KEY "):
        api_key("MY_KEY")
