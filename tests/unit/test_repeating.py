"""What the server does again and again."""

from __future__ import annotations

import threading

import pytest

from server.repeating import every


def test_it_goes_on_after_a_failure_and_ends_when_it_is_told_to(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    done = threading.Event()

    def work() -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the share is away")
        done.set()
        return False

    end = every(0.01, work, name="drop folder")
    assert done.wait(60)
    end()
    assert "drop folder failed; again in 0.01 s" in caplog.text
    count = len(calls)
    done.clear()
    assert not done.wait(0.05)
    assert len(calls) == count


def test_what_is_more_is_done_at_once() -> None:
    """With the pause before each of them it would take 200 seconds."""
    left = [200]
    done = threading.Event()

    def work() -> bool:
        left[0] -= 1
        if left[0] == 0:
            done.set()
        return left[0] > 0

    end = every(1.0, work, name="publication")
    assert done.wait(60)
    end()
