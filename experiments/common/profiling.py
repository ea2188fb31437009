"""A trace of three rounds by JAX's profiler, for TensorBoard, XProf or Perfetto: `--profile=DIR`.

A round is a training step, or a solver on a batch of pictures. Rounds in which things warm up are left out; where a
command has fewer than three more, the trace ends with it.
"""

from __future__ import annotations

import atexit
from typing import Any

import jax
from absl import flags

from diffinv import schema
from experiments.common import runtime

PROFILE = runtime.flag("profile", "", schema.path("write a profiler's trace of three rounds here"))
ROUNDS = 3
_seen: list[bool] = []  # for each round so far, whether it is traced


def before_round(warm: int = 0, pending: Any = None) -> None:
    """To be called before each round; waits for `pending`, what the last one gave, where the trace begins or ends."""
    if not (flags.FLAGS.is_parsed() and PROFILE.value) or len(_seen) > warm + ROUNDS:
        return
    if len(_seen) in (warm, warm + ROUNDS):
        jax.block_until_ready(pending)
    if len(_seen) == warm + ROUNDS:
        stop()
    if len(_seen) == warm:
        jax.profiler.start_trace(runtime.writable(PROFILE.value, "--profile"))
    _seen.append(warm <= len(_seen) < warm + ROUNDS)


def stop() -> None:
    """Ends the trace, if one is being taken."""
    if _seen and _seen[-1]:
        _seen.append(False)
        jax.profiler.stop_trace()
        print(f"a profiler's trace of {sum(_seen)} rounds is in {PROFILE.value}", flush=True)


atexit.register(stop)
