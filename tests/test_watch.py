"""The bar counts the scan's steps whatever it is compiled under, changes nothing, and lets Ctrl-C in."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import samplers, sharding, times

module = importlib.import_module("diffinv.watch")
ROOT = Path(__file__).parents[1]
PRIOR = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
GRID = times.grid(5)


def told(wrap=lambda sampler: sampler, grid=GRID, **options):
    """A function of a key that samples, and the list that its calls go to."""
    seen = []
    show = lambda done, total: seen.append((done, total))
    method = lambda: wrap(di.progress(samplers.ancestral(PRIOR), show, **options))
    return lambda key: di.sample(key, method(), grid).x, seen


def counts(run, seen, *arguments):
    del seen[:]
    x = jax.block_until_ready(run(*arguments))
    jax.effects_barrier()
    return x, [done for done, _ in sorted(seen)]


def test_every_step_is_told_once_and_nothing_changes(key):
    run, seen = told()
    plain = lambda key: di.sample(key, samplers.ancestral(PRIOR), GRID).x
    x, steps = counts(jax.jit(run), seen, key)
    assert steps == [1, 2, 3, 4, 5] and seen[0] == (1, 5)
    np.testing.assert_array_equal(x, jax.jit(plain)(key))
    assert counts(jax.jit(run), seen, key)[1] == [1, 2, 3, 4, 5]  # again with every run


@pytest.mark.parametrize("wrap", [lambda s: s, di.guard, lambda s: di.remat(di.record(s))])
def test_one_call_for_all_examples_and_devices(key, wrap):
    run, seen = told(wrap)
    keys = jax.device_put(jax.random.split(key, 8), sharding.split(sharding.mesh()))
    x, steps = counts(jax.jit(jax.vmap(run)), seen, keys)
    assert x.shape == (8, 2) and steps == [1, 2, 3, 4, 5]


def test_every_is_the_pace(key):
    assert counts(*told(every=2), key)[1] == [1, 2, 4, 5]
    seen = []
    jax.lax.map(lambda i: module._told(lambda done, total: seen.append(done), i, 1000, None), jnp.arange(1, 1001))
    jax.effects_barrier()
    assert len(seen) == 251 and seen[-1] == 1000
    with pytest.raises(ValueError, match="every is 0; give a whole number of steps"):
        told(every=0)[0](key)


def test_gradients_pass_and_steps_outside_sample_are_silent(key):
    run, seen = told()
    assert jnp.isfinite(jax.grad(lambda scale: jnp.sum(scale * run(key)))(1.0))
    del seen[:]
    sampler = di.progress(samplers.ddim(PRIOR), lambda done, total: seen.append(done))
    sampler.step(key, sampler.init(key, 1.0, None), jnp.asarray(1.0), jnp.asarray(0.5))
    assert not seen


def test_an_error_of_the_bar_stops_the_scan(key):
    calls = []

    def show(done, total):
        calls.append(done)
        raise KeyboardInterrupt

    run = jax.jit(lambda key: di.sample(key, di.progress(samplers.ddim(PRIOR), show), times.grid(50)).x)
    with pytest.raises(KeyboardInterrupt), di.interruptible():
        jax.block_until_ready(run(key))
    assert calls == [1]
    with pytest.raises(jax.errors.JaxRuntimeError), di.interruptible():
        raise jax.errors.JaxRuntimeError("out of memory")


def test_bars_show_rate_and_time_left(capfd, monkeypatch):
    for line in (module._line, module._Line):
        monkeypatch.setattr(module, "_line", line)
        bar = module.Bar("dps")
        for done in (1, 2, 2, 4, 1, 4):  # twice told by two devices; then a run that was cut off, and a new one
            bar(done, 4)
        shown = capfd.readouterr().err
        assert "dps" in shown and "/s" in shown and ("4/4" in shown or "4 of 4" in shown) and bar.line is None


def test_a_bar_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert isinstance(module._line(3, ""), module._Line)


LONG = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with "&", tests too
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=%d"
import jax, jax.numpy as jnp
import diffinv as di
from diffinv import samplers, sharding, times
prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
started = lambda done, total: print("started", flush=True) if done == 1 else None
run = lambda key: di.sample(key, di.progress(samplers.ddim(prior), started, 100), times.grid(2_000_000)).x
keys = jax.device_put(jax.random.split(jax.random.key(0), 4), sharding.split(sharding.mesh()))
try:
    with di.interruptible():
        jax.block_until_ready(jax.jit(jax.vmap(run))(keys))
except KeyboardInterrupt:
    print("heard", flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_long_scan(devices):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-c", LONG % devices]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            assert process.stdout.readline() == "started\n", process.stderr.read()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            heard = process.stdout.readline()  # other devices may run on for a while: see `interruptible`
            assert time.monotonic() - start < 10 and heard == "heard\n", heard
        finally:
            process.kill()
