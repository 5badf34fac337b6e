"""What is done again and again, in a thread of its own, for as long as the server runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("xdsi.server")


def every(interval_s: float, work: Callable[[], bool], *, name: str) -> Callable[[], None]:
    """Does `work` every `interval_s` seconds, and at once where it says that more is to be done; whatever becomes of it.

    It ends when the function that comes back is called, which waits for the work that is under way.
    """
    ended = threading.Event()

    def run() -> None:
        pause_s = interval_s
        while not ended.wait(pause_s):
            pause_s = interval_s
            try:
                if work():
                    pause_s = 0.0
            except Exception:
                _log.exception("%s failed; again in %s s", name, interval_s)

    thread = threading.Thread(target=run, name=f"xdsi-{name.replace(' ', '-')}", daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    return end
