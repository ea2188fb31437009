"""Restores slices of the head from a quarter and an eighth of their k-space, with and without a diffusion prior.

Command:  python -m experiments.reconstruct --config=configs/mri.py --images=brain_t1ce128.pngpack.npz
          python -m experiments.reconstruct --config=configs/mri.py:scan --kspace=brain_8coil_kspace_full.npz
Pictures: held-out slices of Cheng's brain tumour set (CC BY 4.0, figshare 1512427), whose k-space is simulated: one
          coil, or `--config.mri.coils=8` for more; `:scan` for k-space of real scans, see docs/mri.md
Papers:   fastMRI's masks, Zbontar et al. 2018 (arXiv:1811.08839); total variation, Lustig et al. 2007; DDNM+, Wang et
          al. 2023 (arXiv:2212.00490); DPS, Chung et al. 2023 (arXiv:2209.14687); DAPS, Zhang et al. 2024
          (arXiv:2407.01521); MMPS, Rozet et al. 2024 (arXiv:2405.13712); ReGuidance, Karan et al. 2025
          (arXiv:2506.10955)
Hardware: two CPU cores; `:smoke`, on generated slices, in a minute
Expected: the table of docs/mri.md
"""

from ml_collections import ConfigDict

from configs import reconstruct


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for simulated k-space, "scan" for that of real scans of several coils, "smoke" for a minute."""
    config = reconstruct.get_config("smoke" if mode == "smoke" else "")
    config.update(
        also="",
        bundled="none",
        prior="brain128",
        task="mri_4,mri_8",
        solver="zero_filled,total_variation,ddnm_plus,dps,daps,mmps,reguidance",
        base="daps",
        sigma_y=0.02,
        total_variation={"steps": 1000, "lam": 0.008},
        pictures=8,
        every=27,
    )
    if mode != "smoke":
        config.update(
            dps={"steps": 100, "zeta": 7.0},  # 18, of photographs, overshoots here; chosen on other slices
            reguidance={"steps": 20, "rho": 1.0, "horizon": 0.2},  # as configs/satellite.py
        )
    if mode == "smoke":
        config.update(bundled="phantoms", task="mri_4", pictures=2)
        config.total_variation = {"steps": 20, "lam": 0.008}
    if mode == "scan":
        config.solver = "zero_filled,total_variation,dps,daps,mmps,reguidance"
    elif mode not in ("", "smoke"):
        raise ValueError(f"mode is {mode!r}; configs/mri.py knows '', 'scan' and 'smoke'")
    return config
