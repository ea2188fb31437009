"""The exact lab: every solver on problems whose posterior is known.

    python -m experiments.exact_lab --config=configs/exact_lab.py

For each method one program is compiled. It runs first on a few problems kept for tuning, with every value of the
method's hyperparameter on each of them; the value with the smallest sliced W1 then runs on the other problems, which
alone are reported. Everything is left in runs/NAME/: index.html (tables, error against cost, ranks, coverage) and
results.json. A finished row is kept in runs/NAME/rows/ under a digest of its problem, settings and program: a run that
was stopped goes on from there, other settings and other runs at the same time lose none, and a row is made again where
its code changed. As many methods run side by side as there are cores.

It ends with status 0, 1 where something given is wrong, 2 where all samples of all methods diverged, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import jax
from tqdm import tqdm

from diffinv import schema
from experiments.common.commandline import listed
from experiments.lab import fields, page
from experiments.lab.bench import Bench
from experiments.lab.judge import FLOOR
from experiments.lab.problems import PROBLEMS, settings
from experiments.lab.rows import Rows
from experiments.methods.lab import ROWS
from experiments.report import ledger

CONFIG = runtime.config_flag(
    str(runtime.ROOT / "configs" / "exact_lab.py"),
    "a configuration; FILE:smoke for a quick run",
    fields.fields,
    fields.check,
)
OUT = runtime.flag("out", "runs", schema.path("the folder of all runs"))
FRESH = runtime.flag("fresh", False, schema.switch("run everything again, whatever the folder holds"))


def main() -> int:
    jax.config.update("jax_enable_x64", True)
    config = CONFIG.value
    problems = listed(config.problems) or list(PROBLEMS)
    own = {which: settings(config, which) for which in problems}
    methods = {which: listed(each.methods) or list(ROWS) for which, each in own.items()}
    folder = runtime.writable(Path(OUT.value) / config.name)
    stamp = {name: config[name] for name in ("seed", "rows", "tuning_rows", "draws", "projections")}
    stamp |= {f"{k} of {which}": v for which, each in config.reduced.items() for k, v in each.items() if k in stamp}
    found = {}
    with tqdm(total=sum(map(len, methods.values())), unit="row") as bar:
        for which in problems:
            bench = Bench(which, own[which], Rows(folder / "rows"))
            lines = found[which] = {FLOOR: bench.floor()}
            for name, line, word in bench.lines(methods[which], FRESH.value):
                lines[name] = line
                if word:
                    bar.write(word)
                bar.set_description(f"{which}: {name}", refresh=False)
                bar.update()
            lines |= bench.others(methods[which])
    results = {"settings": stamp, "problems": found}
    ledger.put(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    command = shlex.join([Path(sys.executable).name, "-m", "experiments.exact_lab", *sys.argv[1:]])
    text = page.page(results, {name: PROBLEMS[name].__doc__ for name in problems}, command)
    index = ledger.put(folder / "index.html", text.encode("utf-8", "replace"))
    for which in problems:
        print(f"\n{which}: {PROBLEMS[which].__doc__}\n" + page.text(found[which]))
    told, all_of_them = page.diverged(found)
    print(*filter(None, [f"\nreport: {index}", told]), sep="\n")
    return 2 if all_of_them else 0


if __name__ == "__main__":
    runtime.run(main)
