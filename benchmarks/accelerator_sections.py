"""The sections of `benchmarks.accelerator`, each in a process of its own: what is found is on disk as soon as it is."""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PEAKS = {
    "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "GH200": 989, "B200": 2250, "A100": 312, "A40": 150,
    "A6000": 155, "L40S": 362, "L40": 181, "L4": 121, "V100": 125, "RTX 4090": 165, "RTX 3090": 71, "T4": 65,
    "TPU v6": 918, "TPU v5p": 459, "TPU v5": 197, "TPU v4": 275,
}  # fmt: skip
"""Dense bfloat16 (V100, T4: float16) matrix products, TFLOP/s, as the makers say; the first name that is a part of the
device's own counts."""
ADM = dict(channels=256, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 16, 32), head_channels=64)
ADM |= dict(resample_blocks=True, out_channels=6)
TINY = dict(channels=8, multipliers=(1,), blocks=1, attention=(), head_channels=8, out_channels=3)


class Report:
    """What a section found, in a file that is whole at any moment."""

    def __init__(self, path: Path):
        self.path, self.found = path, {}

    def tell(self, **numbers: Any) -> None:
        """Keeps and prints them."""
        self.found |= numbers
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=1))
        os.replace(temporary, self.path)
        print(", ".join(f"{name}: {value}" for name, value in numbers.items()), flush=True)


def begin(report: Report, options: dict[str, Any]) -> Any:
    """JAX's first device. Raises ValueError where it is a CPU and this is no rehearsal."""
    from experiments.common import runtime  # isort: skip  (before jax)

    import jax

    runtime.start()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options["rehearse"]:
        raise ValueError("JAX finds no accelerator here; install jax for it, or give --rehearse")
    report.tell(device=f"{jax.device_count()} x {device.device_kind}, jax {jax.__version__}")
    return device


def peak(device: str) -> float | None:
    """TFLOP/s of a device by its name; None for one that is not in `PEAKS`."""
    return next((rate for name, rate in PEAKS.items() if name in device), None)


# ---- tests


def tests(report: Report, options: dict[str, Any]) -> None:
    """`pytest -m gpu`, by name; in a rehearsal another CPU device stands for the GPU, and networks are left out."""
    found = report.path.with_suffix(".xml")
    arguments = ["-o", "addopts=", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={found}"]
    platform = {"JAX_PLATFORMS": "cpu", "DIFFINV_GPU": "cpu"} if options["rehearse"] else {"JAX_PLATFORMS": "cuda,cpu"}
    some = ["-k", "not network"] if options["rehearse"] else []
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", *arguments, *some]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **platform}, check=False)
    cases = {case.get("name"): _verdict(case) for case in xml.parse(found).iter("testcase")}
    report.tell(passed=sum(verdict == "passed" for verdict in cases.values()), **cases)
    if done.returncode:
        failed = [name for name, verdict in cases.items() if verdict.startswith("failed")]
        raise ValueError(f"pytest ended with status {done.returncode}: {', '.join(failed) or 'see the log'}")


def _verdict(case: xml.Element) -> str:
    for kind, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(kind)) is not None:
            return f"{word}: {(found.get('message') or '').splitlines()[0][:200]}"
    return "passed"


# ---- training


def configuration(name: str, options: dict[str, Any]) -> Any:
    """`configs/NAME.py` for an accelerator: bfloat16, a large batch, the carried pictures, the shipped weights.

    Raises FileNotFoundError where no pictures were carried.
    """
    from importlib import import_module

    from diffinv import weights

    rehearse, carried = options["rehearse"], Path(options["carried"] or ".") / f"{name}.npz"
    config = import_module(f"configs.{name}").get_config("smoke" if rehearse else "")
    config.net.update({"dtype": "bfloat16", **({"multipliers": (1,)} if rehearse else {})})
    if rehearse and config.classes:
        config.update(classes=10, net={"attention": ()})
    config.crop = config.crop or config.size  # the whole picture, read without TFDS
    if carried.exists():
        config.data = str(carried)
    elif not rehearse:
        raise FileNotFoundError(f"{carried} is not there; make it by --pack, and name its folder by --carried")
    if not rehearse:
        config.start = name if os.path.exists(f"{weights.embedded(name)}.json") else ""
        config.update(batch=256, warmup=200 if config.start else 500, eval_images=1024, sample_steps=32)
        config.ema_half_lives = (100_000, 25_000, 400_000)
    return config


def train(report: Report, options: dict[str, Any], name: str, begun: float) -> None:
    """A prior for so many seconds from the weights that ship; writes weights, card and samples."""
    from benchmarks import timed_training
    from experiments.tasks.run import Run, task

    begin(report, options)
    config = configuration(name, options)
    source, held_out = (task(config).source(config, split, options["out"], iter) for split in ("train", "validation"))
    report.tell(started_from=config.start or "drawn weights", pictures=len(source), held_out_pictures=len(held_out))
    judge = Run(timed_training.changed(config, net={"dtype": "float32"}), source)
    if config.start:
        report.tell(held_out_before=timed_training.mean(judge.held_out(judge.start, held_out)))
    timed = timed_training.train_for(config, source, options["train_seconds"], begun)
    steps = int(timed.state.step)
    report.tell(pictures_per_s=timed.rate, steps=steps, training_loss=float(np.mean(timed.losses)))
    card = timed_training.write(judge, timed, source, held_out, options["out"])
    report.tell(held_out_after=timed_training.mean(card["held_out_loss"]), images_seen=card["images_seen"])
    report.tell(images_seen_in_all=card.get("images_seen_in_all", "unknown"), weights=f"{name}.safetensors")
    timed_training.show(judge, timed, held_out, Path(options["out"]) / f"{name}.png")
    report.tell(samples=f"{name}.png")


# ---- what sampling costs


def sampling(report: Report, options: dict[str, Any]) -> None:
    """DDIM and DPS over as many calls of the bare network, by turns, as `benchmarks.sampling` has it."""
    from benchmarks import sampling as bench

    begin(report, options)
    steps, batch, rounds = (2, 8, 2) if options["rehearse"] else (20, 256, 7)
    prior = small_prior() if options["rehearse"] else bench.embedded()
    names = ["ddim", "evaluations", "dps", "gradients"]
    programs = bench.jax_programs(steps, prior, names, batch)
    for program in programs.values():
        program()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[:: -1 if turn % 2 else 1]:
            seconds[name].append(clocked(programs[name]))
    report.tell(
        batch=batch, steps=steps, **{f"{k}_ms_a_step": 1e3 * statistics.median(seconds[k]) / steps for k in names}
    )
    paired = lambda a, b: statistics.median(x / y for x, y in zip(seconds[a], seconds[b]))
    report.tell(ddim_over_network=paired("ddim", "evaluations"), dps_over_gradients=paired("dps", "gradients"))


def clocked(program: Callable[[], Any]) -> float:
    """Seconds of one call, which waits for its result."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def small_prior() -> Any:
    """A prior of 8 x 8 pictures with drawn weights, for rehearsals."""
    import diffinv as di
    from diffinv import process
    from diffinv.nn import convnet

    net, forward = convnet.ConvUNet(channels=8, multipliers=(1,), blocks=1), process.VP()
    return di.Prior(forward, di.NetworkDenoiser(drawn(net, 8), forward, net.apply), (8, 8, 3))


# ---- arithmetic


def drawn(net: Any, size: int, dtype: Any = None) -> Any:
    """Weights by numpy, the same in every process; compiled initialisers take longer than what they are for."""
    import jax
    import jax.numpy as jnp

    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((size, size, 3)), jnp.zeros(()))
    count = lambda leaf: int(np.prod(leaf.shape))
    normal = np.random.default_rng(0).standard_normal(max(map(count, jax.tree.leaves(shapes)))).astype(np.float32)

    def draw(path: Any, leaf: Any) -> Any:
        value = normal[: count(leaf)].reshape(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(1 + 0.1 * value if path[-1].key == "scale" else value, dtype or leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def yardstick(options: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
    """(fields, side, batch) of the network that is timed here and in PyTorch."""
    return (TINY, 8, 2) if options["rehearse"] else (ADM, 256, 8)


def pictures(side: int, batch: int) -> np.ndarray:
    """Standard normal, (batch, side, side, 3)."""
    return np.random.default_rng(1).standard_normal((batch, side, side, 3)).astype(np.float32)


def counted(lowered: Any, compiled: Any) -> float:
    """Operations of one call as the compiled program counts them, or the program before XLA's own calls, which it may
    not count, where that is more."""
    found = [each.cost_analysis() for each in (compiled, lowered)]
    return max(float((cost[0] if isinstance(cost, list) else cost or {}).get("flops", 0)) for cost in found)


def mfu(report: Report, options: dict[str, Any]) -> None:
    """An evaluation of ADM's network at 256 x 256 in bfloat16, then what DPS needs: a value and its input gradient."""
    import jax
    import jax.numpy as jnp

    from diffinv.nn import unet

    device = begin(report, options)
    fields, side, batch = yardstick(options)
    net = unet.UNet(**fields, dtype=jnp.bfloat16, plain_conv=True)
    params, x = jax.device_put(drawn(net, side, jnp.bfloat16)), jnp.asarray(pictures(side, batch))
    apply = lambda params, x: jax.vmap(net.apply, (None, 0, None))(params, x, jnp.float32(0.3))
    square = lambda x, params: jnp.sum(apply(params, x) ** 2)
    report.tell(batch=batch, weights=sum(leaf.size for leaf in jax.tree.leaves(params)))
    out = arithmetic(report, options, device, "network", apply, params, x)
    np.save(report.path.with_name("network.npy"), out[:1])
    arithmetic(report, options, device, "gradient", jax.value_and_grad(square), x, params)


def arithmetic(report: Report, options: dict, device: Any, name: str, function: Callable, *args: Any) -> Any:
    """Tells time, operations and share of the peak of one function; returns what it gives, in host memory."""
    import jax

    start, lowered = time.perf_counter(), jax.jit(function).lower(*args)
    compiled = lowered.compile()
    report.tell(**{f"{name}_compile_s": time.perf_counter() - start})
    out, batch = jax.block_until_ready(compiled(*args)), yardstick(options)[2]
    seconds = statistics.median(clocked(lambda: jax.block_until_ready(compiled(*args))) for _ in range(20))
    flops, top = counted(lowered, compiled), peak(device.device_kind)
    report.tell(**{f"{name}_ms_a_picture": 1e3 * seconds / batch, f"{name}_tflop_a_picture": flops / batch / 1e12})
    report.tell(**{f"{name}_tflop_per_s": flops / seconds / 1e12})
    if top:
        report.tell(**{f"{name}_mfu": flops / seconds / (top * 1e12), "peak_tflop_per_s": top})
    return jax.device_get(out)


def torch(report: Report, options: dict[str, Any]) -> None:
    """The same network in PyTorch, channels_last, bfloat16: as it is, then by torch.compile; JAX's time over its."""
    try:
        import torch as th
    except ImportError:
        report.tell(skipped="torch is not installed here")
        return
    os.environ["JAX_PLATFORMS"] = "cpu"  # draws the weights alone, and leaves the device to PyTorch
    from benchmarks import torch_unet
    from diffinv.nn import unet

    fields, side, batch = yardstick(options)
    device = "cpu" if options["rehearse"] else "cuda"
    net = unet.UNet(**fields)
    model = torch_unet.load(drawn(net, side), net).to(device, th.bfloat16)
    x = th.from_numpy(pictures(side, batch)).permute(0, 3, 1, 2).to(device, th.bfloat16)
    condition = th.full((1,), 0.3, device=device)
    report.tell(torch=th.__version__, batch=batch)
    settings = {"backend": "eager"} if options["rehearse"] else {}
    for name, forward in (("eager", model), ("compiled", th.compile(model, **settings))):
        call = functools.partial(finished, th, forward, x, condition)
        out = call().float().permute(0, 2, 3, 1).cpu().numpy()
        report.tell(**{f"{name}_ms_a_picture": 1e3 * statistics.median(clocked(call) for _ in range(20)) / batch})
        compare(report, options, name, out)


def finished(th: Any, forward: Callable[..., Any], *args: Any) -> Any:
    """What a PyTorch function gives, once the device has it."""
    with th.inference_mode():
        out = forward(*args)
    if out.is_cuda:
        th.cuda.synchronize()
    return out


def compare(report: Report, options: dict[str, Any], name: str, out: np.ndarray) -> None:
    """Tells JAX's time over PyTorch's, and by how much their values differ, where the section `mfu` has found them."""
    folder = Path(options["out"]) / "sections"
    if not (folder / "network.npy").exists():
        return
    ours, time_of_ours = np.load(folder / "network.npy"), json.loads((folder / "mfu.json").read_text())
    error = float(np.linalg.norm(out[: len(ours)] - ours) / np.linalg.norm(ours))
    ratio = time_of_ours["network_ms_a_picture"] / report.found[f"{name}_ms_a_picture"]
    report.tell(**{f"jax_over_{name}": ratio, f"{name}_differs_by": error})


# ---- two processes


def nccl(report: Report, options: dict[str, Any]) -> None:
    """Two processes, a device each: their sum is right, and how fast 256 MiB are summed."""
    from benchmarks import pair

    count = 2 if options["rehearse"] else pair.devices()
    if count < 2:
        report.tell(skipped=f"{count} device here; two processes need two")
        return
    report.tell(**pair.run(2**18 if options["rehearse"] else 2**26, options["rehearse"]))


SECTIONS: dict[str, Callable[[Report, dict[str, Any]], None]] = {
    "tests": tests,
    "sampling": sampling,
    "satellite64": lambda report, options: train(report, options, "satellite64", BEGUN),
    "photo": lambda report, options: train(report, options, "photo", BEGUN),
    "mfu": mfu,
    "torch": torch,
    "nccl": nccl,
}
BEGUN = time.monotonic()


def main(name: str, options: str) -> int:
    """Runs one section, with `options` as JSON; a failure is one line in its report, and its trace in the log."""
    told: dict[str, Any] = json.loads(options)
    report = Report(Path(told["out"]) / "sections" / f"{name}.json")
    report.tell()
    try:
        SECTIONS[name](report, told)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        report.tell(failed=f"{type(error).__name__}: {lines[0][:300]}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
