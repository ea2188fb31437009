"""The product's own matrix: every task with every solver of `experiments.reconstruct`, compiled as it compiles them.

The tests lie in three files, so that several workers share them; tasks that are the same program are run as one.
`matrix.py` runs beside this process with the command's own two devices, precision and optimisation, on pictures drawn
from its exact prior. A residual that is right is then known: it is stated here, with the reason where it is not 1.
"""

import json
import os
import sys
from pathlib import Path

import forking
import numpy as np

from experiments.methods.derivative_free import DERIVATIVE_FREE
from experiments.methods.table import METHODS

ROOT = Path(__file__).parents[2]
MASKS = ["box_inpainting,random_inpainting,freeform_inpainting,inpaint", "colourisation"]
BLURS = ["gaussian_blur,motion_blur", "deblur"]
ENLARGEMENTS = ["super_resolution", "bicubic", "denoise"]
SCANS = ["mri,mri_4,mri_8"]
NONLINEAR = ["nonlinear_blur", "high_dynamic_range", "phase_retrieval"]
UNKNOWN = ["deblur"]  # whose singular values are not known

OPTIMISED = ["dps", "daps", "ddnm_plus", "reguidance"]
"""The solvers that the shipped configurations name are compiled with their optimisation for masks, blurs and scans."""

OF_A_KIND = ["pigdm", "mmps", "ddrm", "pgdm", "lgd", "diffpir", "reddiff", "flair", "pnpdm", "mgps", "mcgdiff", "tds"]
OF_A_KIND += ["total_variation", "wiener"]
"""One of each other kind of program, which are so compiled for blurs; all else is compiled by the emitters that compile
in half the time."""

WITHOUT = ["daps", "dapspp", "dcdp", "deep_image_prior", "diffstategrad", "dmplug", "dps", "flowdps", "lgd", "mgps"]
WITHOUT += ["flair", "mgdm", "reddiff", "reguidance", "sitcom", "tds"]
"""Solvers that ask the operator for its derivative alone, so that it need not be linear."""

ALIKE = ["colourisation", "deblur", "bicubic", "denoise"]
"""Tasks whose derivative is such a solver's old acquaintance, from masks, blurs and enlargements: of `WITHOUT` those
alone run there that the shipped configurations name."""

RUN = ["daps", "ddsmc", "fps", "lgd", "mcgdiff", "pnpdm", "dpnp", "repaint"]
"""Solvers that run for longer than they compile: elsewhere, too, their code is optimised a little. On tasks of `ALIKE`
those that no shipped configuration names are lowered and not compiled."""


def level(tasks, name):
    """XLA's optimisation of a solver for these tasks."""
    if name == "deep_image_prior":  # 50 seconds of compiling with all of it
        return 0
    if tasks == BLURS[0] and name in OF_A_KIND:
        return 3
    if name in OPTIMISED and tasks in (MASKS[0], BLURS[0], SCANS[0]):
        return 3
    if name in RUN and name not in OPTIMISED and tasks in ALIKE:
        return -1
    return int(name in RUN)


# The mean picture's residual over the floor that noise alone leaves: least and most, over all tasks.
SAMPLES = (0.4, 1.6)  # a sample of the posterior leaves about the noise
FITTED = (0.0, 0.3)  # what was seen is put back, noise included
CLOSE = (0.05, 1.3)  # descends on the residual alone in places, so that it fits part of the noise
BAND = {name: SAMPLES for name in METHODS}
BAND |= dict.fromkeys(["ddnm", "mcg", "repaint"], FITTED)
BAND |= dict.fromkeys(["dps", "lgd", "daps", "pgdm", "reddiff", "dcdp", "diffpir", "mcgdiff"], CLOSE)
BAND |= {"diffstategrad": (0.3, 2.0), "dmplug": (0.2, 4.5)}  # DPS with less of its step; a picture of three steps
BAND |= {"pnpdm": (1.0, 7.0)}  # its chain ends at a coupling of 0.3, six times this noise
BAND |= {"dpnp": (1.0, 4.5)}  # 0.16, three times
BAND |= {"mgps": (0.8, 4.5), "tds": (0.7, 3.0)}  # two gradient steps a level; twists far from the data
BAND |= {"flair": (0.8, 3.2)}  # stops at the noise, where the regulariser does not hold it off few lines
BAND |= {"mgdm": (0.9, 3.0)}  # five gradient steps a level, at a likelihood of the mean
BAND |= {"reguidance": (0.25, 1.3)}  # stays near its base, DAPS
BAND |= {"zero_filled": (0.0, 17.0)}  # an adjoint is no inverse: what was averaged stays weak
BAND |= {"total_variation": (0.9, 4.2)}  # flattens pictures that are noise
BAND |= dict.fromkeys(["tikhonov", "wiener", "pnp_admm", "red"], (0.03, 1.2))  # means, which fit part of the noise
BAND |= {"deep_image_prior": (0.4, 3.0)}  # stops before it comes by what is noise here
BAND |= {"sitcom": (0.1, 3.5)}  # optimises the input of the network, which holds back what it cannot reach
BAND |= {"flowdps": (0.1, 3.2)}  # steps of one length: it fits the noise of a mask, and stays off that of few lines
# Values of an operator alone, and few of them: a draw of the prior leaves 6.
BAND |= {"enkg": (1.0, 3.8), "eki": (0.7, 2.8)}  # particles reach what their first positions span, as many as pixels
BAND |= {"dps_gsg": (1.8, 3.6), "dpg": (0.8, 2.9), "scg": (2.2, 5.4)}  # gradients of 64 and 96 draws, the best of 32


def rows(tasks, levels, groups):
    """What `matrix.py` printed of the solvers, whose XLA optimisation `levels` holds, by (task, solver, group)."""
    solvers = ",".join(f"{name}:{level}" for name, level in levels.items())
    command = [sys.executable, "-m", "tests.experiments.matrix", tasks, solvers, groups]
    tests = os.environ.get("DIFFINV_TEST_CACHE", "") or str(ROOT / ".pytest_cache")
    cache = {"DIFFINV_CACHE": os.environ.get("DIFFINV_CACHE", "") or os.path.join(tests, "xla")}
    env = {**os.environ, **cache, "JAX_PLATFORMS": "cpu", "DIFFINV_DEVICES": "2"}
    env.pop("XLA_FLAGS", None)
    done = forking.run(command, env, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(row["task"], row["solver"], row["group"]): row for row in found}


def faults(row):
    """What is wrong with one cell, in words."""
    if "lowered" in row:
        if row["lowered"] != [8, 8, 8, 3]:
            yield f"restores {row['lowered']}"
        return
    low, high = BAND[row["solver"]]
    ratio = float(np.mean(row["ratio"]))
    if not np.isfinite(row["largest"]) or max(row["failed"]) >= 0:
        yield "froze or is not finite"
    if row["largest"] > 4:  # thirteen deviations of the prior
        yield f"reaches {row['largest']:.1f}"
    if not low <= ratio <= high:
        yield f"leaves {ratio:.2f} floors, not {low} to {high}"


def able_on(tasks):
    """The solvers that are tried on these tasks."""
    if tasks in NONLINEAR:
        return WITHOUT if tasks == NONLINEAR[0] else OPTIMISED[:2] + OPTIMISED[-1:]
    known = {name: method for name, method in METHODS.items() if not method.codes}
    able = [name for name, method in known.items() if not (tasks in UNKNOWN and method.needs_spectrum)]
    if tasks in ALIKE:
        able = [name for name in able if name in OPTIMISED or name not in WITHOUT]
    return [name for name in able if tasks == MASKS[0] or name not in DERIVATIVE_FREE]  # of whom A is any program


def assert_restored(tasks):
    """Every solver on each of the tasks: finite, unfrozen, and its residual within its band."""
    able = able_on(tasks)
    found = rows(tasks, {name: level(tasks, name) for name in able}, "8")
    assert len(found) == len(able) * len(tasks.split(","))
    wrong = [f"{task}, {solver}: {fault}" for (task, solver, _), row in found.items() for fault in faults(row)]
    assert not wrong, "\n".join(wrong)
