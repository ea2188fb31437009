"""Global strictness: float64 available, no silent promotion of ranks or types, eight virtual devices."""

import gc
import os
import sys
import tempfile
from pathlib import Path

from compiling import FAST, OLDER, SPLIT, flags, one_context

QUICK = OLDER if {"-m", "PYTEST_XDIST_WORKER"} & {*sys.argv, *os.environ} else FAST
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # nobody reads a program's line numbers
os.environ.setdefault("XLA_FLAGS", flags(QUICK | SPLIT))  # which workers inherit
for library in ("OPENBLAS", "OMP"):  # small problems, and a worker for each core: more threads wait for one another
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import jax
import pytest

one_context()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
_cache = os.environ.get("DIFFINV_TEST_CACHE", str(Path(tempfile.gettempdir()) / "diffinv-test-cache"))
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items):
    """Files that take longest start first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """What was imported stays: the garbage collector need not look at it again, and else looks more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


USUAL = "posterior/test_matrix", "posterior/test_mixture18", "test_fft", "experiments/test_classifiers"
"""Whose programs run for longer than they compile, or whose subject is how XLA optimises."""


@pytest.fixture(autouse=True, scope="module")
def plainly(request):
    """All other files compile plainly, whatever the flags: compilation is most of their time."""
    usual = request.node.nodeid.removeprefix("tests/").startswith(USUAL)
    jax.config.update("jax_disable_most_optimizations", not usual)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def shared():
    """The read-only material beside a checkout, or a skip that says where it was looked for."""
    path = Path(os.environ.get("DIFFINV_SHARED", Path(__file__).parents[1].parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no reference data at {path}; set DIFFINV_SHARED to run this check")
    return path
