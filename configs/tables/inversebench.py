"""InverseBench's compressed-sensing MRI, from a quarter and an eighth of the k-space: its table's solvers.

Command:  python -m experiments.evaluate --config=configs/tables/inversebench.py --config.data=brain_t1ce128.pngpack.npz
          --config=configs/tables/inversebench.py:knee --config.prior=PATH --config.data=PATH for the paper's own size
Pictures: held-out slices of Cheng's brain tumour set (CC BY 4.0, figshare 1512427), 128 x 128; of the paper slices of
          fastMRI's knees, 320 x 320, which its owners give to those who ask
Paper:    Zheng et al. 2025 (arXiv:2503.11043); of solvers the settings of its repository where they are known: DPS and
          RED-diff 1000 steps, DAPS 200 levels. Differs: pictures are magnitudes, and coils are simulated as docs/mri.md
          says; theirs have two parts, and estimated coils. Its scattering and Navier-Stokes are commands of their own,
          `experiments.tables.inversebench_scattering` and `inversebench_navier_stokes`; its black hole and its waveform
          inversion need data that are not at hand
Modes:    "" an hour of two CPU cores, not timed; "smoke" a minute, on satellite pictures in grey for want of shipped
          scans; "knee" days of one GPU, not run
Expected: not computed yet
"""

from ml_collections import ConfigDict

from configs import mri
from configs.tables import defaults
from configs.tables.dps import named

TASKS = {"4x": "mri_4 mri.coils=8", "8x": "mri_8 mri.coils=8"}
SOLVERS = (
    "zero-filled = zero_filled, TV = total_variation, DPS = dps, LGD = lgd, DiffPIR = diffpir, DAPS = daps, "
    "PnP-DM = pnpdm, RED-diff = reddiff"
)


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for slices of heads under the shipped prior, "knee" for files of one's own, "smoke" for a minute."""
    config = defaults.get_config("smoke" if mode == "smoke" else "")
    config.name = f"inversebench_{mode}" if mode else "inversebench"
    config.prior = "brain128"
    config.size = 128
    config.tasks = named(TASKS)
    config.solvers = SOLVERS
    config.update({name: mri.get_config()[name] for name in ("sigma_y", "total_variation", "dps")})
    if mode == "smoke":
        config.tasks = named({"4x": "mri_4"})
        config.solvers = "zero-filled = zero_filled, DPS = dps dps.steps=3"
        config.pictures = 2
        config.size = 32
    elif mode == "knee":
        config.prior = ""
        config.data = ""
        config.pictures = 100
        config.size = 320
        config.group = 2
        config.steps = 0
        config.dps = {"steps": 1000, "zeta": 7.0, "clip": True}
        config.daps = {**config.daps.to_dict(), "steps": 200}
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/tables/inversebench.py knows '', 'knee' and 'smoke'")
    return config
