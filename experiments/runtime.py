"""How every experiment starts: one virtual device a core on a CPU, the compilation cache, and errors as one line.

Import it before jax does any work: devices are fixed when the backend starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_cpu_prefer_vector_width=512")

import jax  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from ml_collections import config_flags  # noqa: E402

WRONG = (flags.Error, KeyError, AttributeError, ValueError, TypeError, OSError)
ROOT = Path(__file__).resolve().parents[1]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start() -> None:
    """Virtual devices and the persistent compilation cache; DIFFINV_CACHE names its folder."""
    jax.config.update("jax_num_cpu_devices", cores())
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`; what a user can mend ends in one line, a bug in its traceback."""
    logging.set_verbosity(logging.ERROR)
    try:
        app.run(lambda _: _guarded(main), flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def _parse(arguments: list[str]) -> list[str]:
    """Flags, with an unknown config key as one line."""
    try:
        rest = flags.FLAGS(arguments)
    except WRONG as error:
        fail(error)
    if len(rest) > 1:
        fail(ValueError(f"unexpected argument {rest[1]!r}; options start with --, see --help"))
    return rest


def _guarded(main: Callable[[], None]) -> None:
    start()
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DIFFINV_TRACEBACK"):
            raise
        fail(error)
