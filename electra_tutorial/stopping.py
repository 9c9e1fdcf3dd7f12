"""Stop a long run in good order: between two steps, in every process at the same one.

A run is asked to stop by SIGTERM (a batch system, a cloud machine that is taken back), by SIGINT
(Ctrl-C, the stop button of a notebook) or by its time limit.
"""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

SIGNALS = ("SIGTERM", "SIGINT")
TIME_LIMIT = 1  # lower than the numbers of the signals: a signal is the more urgent wish


class StopRequest:
    """A context that turns the two signals into a wish, on which all processes agree.

    Outside the main thread, where Python allows no handlers, and with ``handle_signals=False``
    signals act as before. The first signal gives the handlers back: a second one acts at once.

    Args:
        handle_signals: whether to catch SIGTERM and SIGINT.
        num_processes: how many processes train together.
    """

    def __init__(self, handle_signals: bool = True, num_processes: int = 1) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        caught = SIGNALS if handle_signals and in_main_thread else ()
        self._signals = [signal.Signals[name] for name in caught]
        self._previous: dict[signal.Signals, Any] = {}
        self._wish = 0
        # The wish travels between the hosts, beside the gradients: no device has to wait for it.
        self._group = (
            dist.new_group(backend="gloo", timeout=timedelta(hours=2))
            if num_processes > 1
            else None
        )
        self._under_way: tuple[Any, torch.Tensor] | None = None

    def __enter__(self) -> StopRequest:
        for number in self._signals:
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._give_back()
        if error is None and self._under_way is not None:
            self._under_way[0].wait()

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._wish = max(self._wish, number)
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not set from Python, which can't be set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def decide(self, time_is_up: bool = False) -> str | None:
        """Return why to stop now, for instance ``"SIGTERM"`` or ``"time limit"``; None to go on.

        Call it once a step, in every process. With several processes the answer is what they
        wished one call earlier, so that no step waits for the exchange.
        """
        wish = max(self._wish, TIME_LIMIT if time_is_up else 0)
        if self._group is not None:
            mine = torch.tensor(wish)
            wish = 0
            if self._under_way is not None:
                work, earlier = self._under_way
                work.wait()
                wish = int(earlier)
            if not wish:
                work = dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._group, async_op=True)
                self._under_way = (work, mine)
        if not wish:
            return None
        return "time limit" if wish == TIME_LIMIT else signal.Signals(wish).name
