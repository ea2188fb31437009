"""How every experiment starts: devices and hosts, the compilation cache, and errors as one line.

Import it before jax does any work: devices are fixed when the backend starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

XLA_GIVEN = os.environ.get("XLA_FLAGS")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_prefer_vector_width=512")

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

from diffinv import schema  # noqa: E402
from experiments.common import commandline  # noqa: E402
from experiments.common.commandline import config_flag, flag  # noqa: E402

__all__ = ["config_flag", "flag"]

COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0; every process gets the same")
PROCESSES = flag("processes", None, schema.whole("how many processes there are", low=1))
PROCESS = flag("process", None, schema.whole("which of them this is, from 0", low=0))
flags.disclaim_key_flags()  # what follows belongs to the command that asks for it

ROOT = Path(__file__).resolve().parents[2]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def counted(variable: str, meaning: str, default: int, high: int | None = None) -> int:
    """The whole number in an environment variable. Raises ValueError where it is none from 1 to `high`."""
    field = schema.whole(meaning, 1, high)
    count = schema.parsed(field, os.environ.get(variable) or str(default))
    if line := schema.refusal(field, count, variable):
        raise ValueError(line)
    return count


def devices() -> int:
    """The virtual devices of a CPU: DIFFINV_DEVICES, else one a core."""
    return counted("DIFFINV_DEVICES", "virtual devices of the CPU", cores(), 1024)


def known_to_xla() -> None:
    """Raises ValueError for XLA_FLAGS of the user's that XLA does not take, for which it would abort the process."""
    if XLA_GIVEN is None:
        return
    tried = [sys.executable, "-c", "import jax; jax.config.update('jax_platforms', 'cpu'); jax.devices()"]
    done = subprocess.run(tried, capture_output=True, text=True, errors="replace", check=False)
    said = [line for line in done.stderr.splitlines() if "flag" in line.lower()]
    if done.returncode and said:
        raise ValueError(f"XLA_FLAGS is {XLA_GIVEN!r}; XLA says: {said[0].split('] ')[-1]}; mend the flag or unset it")


def start() -> None:
    """Virtual devices (DIFFINV_DEVICES, else one a core) and the compilation cache; DIFFINV_CACHE names its folder."""
    jax.config.update("jax_num_cpu_devices", devices())
    known_to_xla()
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    sweep(cache_folder())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def coordinator(address: str) -> str:
    """The address if it is host:port of a host that is known; else ValueError."""
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", host) or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator is {address!r}; give host:port, as 10.0.0.1:8476")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--coordinator is {address!r}, whose host is not known ({error}); give host:port") from None
    return address


def distribute() -> None:
    """Joins the other processes, where there are any: as the flags say, or as Slurm or a TPU pod does."""
    given = [COORDINATOR.value, PROCESSES.value, PROCESS.value]
    if any(value is not None for value in given):
        if None in given:
            raise ValueError("--coordinator, --processes and --process belong together; give all three or none")
        if PROCESS.value >= PROCESSES.value:
            raise ValueError(f"--process is {PROCESS.value}; give a whole number below --processes={PROCESSES.value}")
        address = coordinator(COORDINATOR.value)
        jax.distributed.initialize(address, PROCESSES.value, PROCESS.value, initialization_timeout=120)
    elif counted("SLURM_NTASKS", "processes that Slurm started", 1) > 1 or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    ):
        jax.distributed.initialize()


def writable(folder: Path | str, name: str = "--out") -> Path:
    """The folder, made and tried, before anything is computed for it. Raises OSError where nothing can be written."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Path(folder)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"{name} is {str(folder)!r}, where no file can be written ({why}); give another folder") from None


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
            in_main_thread(lambda: signal.signal(signal.SIGTERM, self._note))

    def _note(self, *_: object) -> None:
        self.came = True

    def __call__(self, step: int) -> bool:
        return self.came if self.alone else multihost_utils.reached_preemption_sync_point(step)


def cache_folder() -> Path:
    """Where compiled programs are kept between starts."""
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("DIFFINV_CACHE", Path(home) / "diffinv" / "xla"))


def sweep(folder: Path, age: float = 60) -> None:
    """Removes programs that a kill left empty, which JAX would neither read nor replace."""
    if folder.is_dir():
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):  # another process may have removed it
                found = entry.stat()
                if not found.st_size and time.time() - found.st_mtime > age and entry.is_file():
                    os.unlink(entry.path)


def choose(name: str, value: str, known: list[str]) -> str:
    """`value` if it is known; else ValueError that names the nearest."""
    if value in known:
        return value
    near = get_close_matches(value, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name} is {value!r}; {hint}known are {', '.join(known)}")


def run(main: Callable[..., int | None], positional: bool = False) -> None:
    """Parses the flags and runs `main`, with the arguments that are no flags where `positional`; what a user can mend
    ends in one line, a bug in its traceback. What `main` returns is the exit status."""
    logging.set_verbosity(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    call = (lambda rest: main(rest[1:])) if positional else (lambda _: main())
    parse = lambda found: commandline.parse(found, positional)
    try:
        app.run(lambda rest: _waited(lambda: _guarded(lambda: call(rest))), flags_parser=parse)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; what was finished is kept", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # a program that is running would hold any other end until it is through


ERRANDS: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()


def in_main_thread(errand: Callable[[], object]) -> None:
    """Does what only the main thread may, such as to hear signals, also where a command asks for it."""
    if threading.current_thread() is threading.main_thread():
        errand()
        return
    finished = threading.Event()
    ERRANDS.put(lambda: (errand(), finished.set()))
    finished.wait()


def _waited(main: Callable[[], int | None]) -> int | None:
    """What `main` returns or raises, run in a thread of its own: the main thread hears Ctrl-C while JAX computes."""
    done, ends = threading.Event(), []

    def work() -> None:
        try:
            ends.append(main())
        except BaseException as error:
            ends.append(error)
        finally:
            done.set()

    threading.stack_size(2**26)
    threading.Thread(target=work, daemon=True).start()
    while not done.wait(0.05):
        while not ERRANDS.empty():
            ERRANDS.get()()
    if isinstance(ends[0], BaseException):
        raise ends[0]
    return ends[0]


def _guarded(main: Callable[[], int | None]) -> int | None:
    try:
        start()
        distribute()
        return main()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DIFFINV_TRACEBACK"):
            raise
        commandline.fail(str(error) or type(error).__name__)
