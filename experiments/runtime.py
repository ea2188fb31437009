"""How every experiment starts: devices and hosts, the compilation cache, and errors as one line.

Import it before jax does any work: devices are fixed when the backend starts.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_prefer_vector_width=512")

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from ml_collections import config_flags  # noqa: E402

COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0; every process gets the same")
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0)

WRONG = (flags.Error, KeyError, AttributeError, ValueError, TypeError, OSError)
ROOT = Path(__file__).resolve().parents[1]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start() -> None:
    """Virtual devices (DIFFINV_DEVICES, else one a core) and the compilation cache; DIFFINV_CACHE names its folder."""
    jax.config.update("jax_num_cpu_devices", int(os.environ.get("DIFFINV_DEVICES", cores())))
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def distribute() -> None:
    """Joins the other processes, where there are any: as the flags say, or as Slurm or a TPU pod does."""
    given = [COORDINATOR.value, PROCESSES.value, PROCESS.value]
    if any(value is not None for value in given):
        if None in given:
            raise ValueError("--coordinator, --processes and --process belong together; give all three or none")
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value, initialization_timeout=120)
    elif int(os.environ.get("SLURM_NTASKS", 1)) > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()


def first() -> bool:
    """Whether this process writes what one process writes: files that are not checkpoints, and the progress bar."""
    return jax.process_index() == 0


def together(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(what: str, text: str) -> None:
    """Raises ValueError in every process where `text` is not the same in all of them."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.uint32)
    digests = multihost_utils.process_allgather(digest)
    other = [i for i, found in enumerate(digests) if not np.array_equal(found, digests[0])]
    if other:
        raise ValueError(f"processes {other} have another {what} than process 0; start all of them with the same")


class Preemption:
    """`preemption(step)` says whether SIGTERM came, in the same step to every process."""

    def __init__(self) -> None:
        self.came, self.alone = False, jax.process_count() == 1
        if self.alone:
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.came = True

    def __call__(self, step: int) -> bool:
        return self.came if self.alone else multihost_utils.reached_preemption_sync_point(step)


def cache_folder() -> Path:
    """Where compiled programs are kept between starts."""
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("DIFFINV_CACHE", Path(home) / "diffinv" / "xla"))


def choose(name: str, value: str, known: list[str]) -> str:
    """`value` if it is known; else ValueError that names the nearest."""
    if value in known:
        return value
    near = get_close_matches(value, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name} is {value!r}; {hint}known are {', '.join(known)}")


def fail(error: BaseException) -> None:
    """One line on standard error, and exit status 1."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Traceback (most recent call last)" in text:  # a config file's own error, wrapped by ml_collections
        text = text.strip().splitlines()[-1]
    text = " ".join(text.split()) or type(error).__name__
    sys.exit(f"error: {text}")


def config_flag(default: str | None, text: str) -> flags.FlagHolder:
    """The flag --config; an unknown key or a bad file is one line here already, where a default file is read."""
    try:
        return config_flags.DEFINE_config_file("config", default, text)
    except WRONG as error:
        fail(error)


def run(main: Callable[..., None], positional: bool = False) -> None:
    """Parses the flags and runs `main`, with the arguments that are no flags where `positional`; what a user can mend
    ends in one line, a bug in its traceback."""
    logging.set_verbosity(logging.ERROR)
    call = (lambda rest: main(rest[1:])) if positional else (lambda _: main())
    try:
        app.run(lambda rest: _guarded(lambda: call(rest)), flags_parser=lambda found: _parse(found, positional))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def _parse(arguments: list[str], positional: bool) -> list[str]:
    """Flags, with an unknown config key as one line."""
    try:
        rest = flags.FLAGS(arguments)
    except WRONG as error:
        fail(error)
    if len(rest) > 1 and not positional:
        fail(ValueError(f"unexpected argument {rest[1]!r}; options start with --, see --help"))
    return rest


def _guarded(main: Callable[[], None]) -> None:
    start()
    try:
        distribute()
        main()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DIFFINV_TRACEBACK"):
            raise
        fail(error)
