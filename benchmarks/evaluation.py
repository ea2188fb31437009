"""What a table costs beside its solvers: measuring, scoring and keeping; many devices; settings tried in one program.

    python -m benchmarks.evaluation [--items=24] [--points=64] [--separate=3]

DPS of 100 steps on satellite pictures with a hidden box, under the prior that ships. Goals: a cell's whole time,
without compiling, at most 1.05 of its solver's own; 64 values of a setting, compiling included, at most a quarter of 64
runs that each compile their own (of which `separate` are measured). The time on 8 virtual devices, over that on one
with as many items at once, is printed and has no goal: they share the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TASK = "box_inpainting box.top=16 box.left=16 box.size=32"


def table(solvers: str, group: int, count: int):
    """The cells of a table, a workshop with `count` pictures, and their items."""
    from configs.tables import defaults
    from experiments.common import priors
    from experiments.evaluation import cells, items
    from experiments.evaluation.fields import FIELDS
    from experiments.evaluation.work import Workshop

    config = defaults.get_config()
    config.update(tasks=TASK, solvers=solvers)
    prior, _ = priors.load(config.prior)
    pictures = items.pictures("satellite", prior.shape, 0, min(count, 20), 0)[1]
    draws = -(-count // len(pictures.digests))
    return cells.cells(config, FIELDS), Workshop(prior, pictures, group), pictures.items(draws)[:count]


def whole(count: int, group: int) -> dict[str, float]:
    """Seconds an item of a whole cell, and of its solver alone, after another cell of the same task and pictures: what
    all cells share, programs and the pictures' own features, is then there."""
    from tqdm import tqdm

    from experiments.evaluation import shards

    plan, shop, items = table("ddrm, dps dps.steps=100", group, count)
    with tempfile.TemporaryDirectory() as place, tqdm(disable=True) as bar:
        shop.finish(plan[0], Path(place), items, None, bar)
        start = time.perf_counter()
        shop.finish(plan[1], Path(place), items, None, bar)
        seconds = time.perf_counter() - start
        found = shards.read(Path(place) / plan[1].folder)[0]
    compiling = next(iter(found.values())).about["compile_seconds"]
    own = sum(each.scores["seconds"] for each in found.values())
    return {"whole": (seconds - compiling) / count, "solver": own / count}


def sweeping(points: int, separate: int, group: int) -> dict[str, float]:
    """Seconds of choosing among so many values, and of as many programs with one value each, compiling included."""
    import numpy as np
    from tqdm import tqdm

    from experiments.evaluation import choosing

    values = "|".join(f"{value:.6g}" for value in np.geomspace(0.1, 10, points))
    (cell,), shop, items = table(f"dps dps.steps=100 dps.zeta={values}", group, 1)
    settings = choosing.combinations(dict(cell.solver.open))
    with tqdm(disable=True) as bar:
        trial = choosing.Trial(shop, cell, None, bar)
        trial([{"dps.zeta": 1.0}], items)  # what all share is compiled
        start = time.perf_counter()
        trial(settings, items)
        together = time.perf_counter() - start
        start = time.perf_counter()
        for each in settings[:separate]:
            alone = cell.settled(each)
            shop.compute(alone, shop.programs(alone), items, shop.devices, None)
        apart = (time.perf_counter() - start) / separate * points
    return {"together": together, "apart": apart}


def child(devices: int, count: int, group: int) -> dict[str, float]:
    """`whole` in a process of its own: devices are fixed when jax starts."""
    env = {**os.environ, "DIFFINV_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.evaluation", f"--items={count}", f"--group={group}", "--child"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Prints the ratios; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--separate", type=int, default=3, help="separate runs that are measured")
    parser.add_argument("--group", type=int, default=8, help="items at once")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    from experiments.common import runtime  # isort: skip  (before jax)

    import jax

    runtime.start()
    jax.config.update("jax_enable_compilation_cache", False)
    found = whole(args.items, args.group)
    if args.child:
        print(json.dumps(found))
        return 0
    cost = found["whole"] / found["solver"]
    print(f"a cell: {found['whole']:.3f} s an item, its solver alone {found['solver']:.3f} s; ratio {cost:.3f}")
    print(f"goal 1.05  {'met' if cost <= 1.05 else 'MISSED'}", flush=True)
    one, eight = child(1, args.items, 8), child(8, args.items, 1)
    print(f"8 virtual devices against 1, 8 items at once: {eight['whole'] / one['whole']:.3f}", flush=True)
    swept = sweeping(args.points, args.separate, args.group)
    share = swept["together"] / swept["apart"]
    told = f"{swept['together']:.1f} s; one by one: {swept['apart']:.1f} s (from {args.separate})"
    print(f"{args.points} values in one program: {told}; ratio {share:.3f}")
    print(f"goal 0.25  {'met' if share <= 0.25 else 'MISSED'}")
    return int(cost > 1.05 or share > 0.25)


if __name__ == "__main__":
    raise SystemExit(main())
