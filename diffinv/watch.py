"""Progress of a scan while it runs, compiled, mapped or on several devices, and Ctrl-C inside of it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffinv.typing import Array, Info, Key, Sampler, State, Time

CALLS = 250  # of the bar in one run, about
_patient = threading.Event()
_ears: list[socket.socket] = []
_place: ContextVar[tuple[Array, int] | None] = ContextVar("place", default=None)


@contextlib.contextmanager
def walking(step: Array, total: int) -> Iterator[None]:
    """Inside, while a step is traced, `progress` knows that it is number `step`, from 1, of `total`."""
    token = _place.set((step, total))
    try:
        yield
    finally:
        _place.reset(token)


def _listen() -> None:
    """Lets signals write to a socket that any thread can read: the main one may wait in C, deaf to Ctrl-C."""
    if _ears or threading.current_thread() is not threading.main_thread():
        return
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    other = signal.set_wakeup_fd(ends[1].fileno(), warn_on_full_buffer=False)
    if other == -1:
        _ears.extend(ends)
    else:  # another's, such as an event loop's, which stays
        signal.set_wakeup_fd(other)


def _heard() -> bool:
    """Whether Ctrl-C came since the last look, where it means KeyboardInterrupt."""
    try:
        said = _ears[0].recv(4096) if _ears else b""
    except BlockingIOError:
        return False
    return signal.SIGINT in said and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class _Line:
    """One line on standard error, in the manner of tqdm, where that is not installed."""

    def __init__(self, total: int, desc: str) -> None:
        self.total, self.name, self.done, self.start = total, desc, 0, time.monotonic()

    def update(self, steps: int) -> None:
        self.done += steps
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        left = (self.total - self.done) / rate if self.done else float("nan")
        text = f"{self.name} {self.done} of {self.total}, {rate:.3g} steps/s, {left:.0f} s left"
        sys.stderr.write(f"\r{text.strip():<72}")
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.write("\n")


def _line(total: int, name: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(total, name)
    return tqdm(total=total, desc=name or None, unit="step", dynamic_ncols=True)


class Bar:
    """A bar with rate and remaining time on standard error: tqdm's where that is installed. It is a callable of (steps
    done, their total), starts anew with every run, and is closed by the last step. `name` stands before it."""

    def __init__(self, name: str = "") -> None:
        self.name, self.done, self.line = name, 0, None

    def __call__(self, done: int, total: int) -> None:
        if done == 1 and self.done != 1:
            self.close()
            self.line, self.done = _line(total, self.name), 0
        if self.line is not None and done > self.done:
            self.line.update(done - self.done)
            self.done = done
        if done == total:
            self.close()

    def close(self) -> None:
        """Ends the line, where one is open."""
        if self.line is not None:
            self.line.close()
        self.line, self.done = None, 0


def progress(sampler: Sampler, show: Callable[[int, int], None] | None = None, every: int | None = None) -> Sampler:
    """The sampler, which tells `show(done, total)` after its first step, its last, and every `every` between.

        solver = di.as_solver(lambda m: di.progress(posterior.dps(prior, m)), times.grid(1000))

    Under `vmap` one call stands for all examples, and on several devices for all of them: the bar counts steps, not
    pictures. A call takes about 0.2 ms of a CPU. Ctrl-C stops the scan at the next call, see `interruptible`; of
    several devices the first, which calls: the others finish unheard. Outside `sample` nothing is shown.

    Args:
      sampler: wrapped last, around `guard` and `record`.
      show: by default a `Bar`. It may run in another thread; an error that it raises stops the computation.
      every: static; by default about 250 calls a run. Give 1 where a step takes seconds.

    Raises ValueError for `every` under 1.
    """
    if every is not None and every < 1:
        raise ValueError(f"every is {every}; give a whole number of steps, at least 1")
    tell = show if show is not None else Bar()
    _listen()

    def step(key: Key, state: State, t: Time, s: Time) -> tuple[State, Info]:
        place = _place.get()
        if place is not None:
            _told(tell, *place, every)
        return sampler.step(key, state, t, s)

    return sampler._replace(step=step)


def _told(tell: Callable[[int, int], None], done: Array, total: int, every: int | None) -> None:
    pace = every or -(-total // CALLS)
    now = (done % pace == 0) | (done == 1) | (done == total)

    def call(i: Any) -> None:
        if _heard() and (i > 1 or _patient.is_set()):  # what came before the first step is an older run's
            getattr(tell, "close", lambda: None)()
            raise KeyboardInterrupt
        tell(int(i), total)

    jax.lax.cond(now, partial(jax.debug.callback, call), lambda i: None, jnp.asarray(done))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C in a scan with `progress` is always a KeyboardInterrupt, also where it came during compilation;
    outside, JAX may call it a JaxRuntimeError.

        with di.interruptible():
            solution = jax.block_until_ready(reconstruct(key, prior, measurement))

    Wait inside, by `jax.block_until_ready`. Without `progress` only that wait ends; the devices go on.
    """
    _listen()
    _heard()
    _patient.set()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise
    finally:
        _patient.clear()
