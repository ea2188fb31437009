"""Every solver on problems whose posterior is known, judged against exact samples.

Command:  python -m experiments.exact_lab --config=configs/exact_lab.py
Problems: a correlated Gaussian and MCGDiff's 25-component mixture in 8 dimensions, with every method; BIPSDA's mixture
          in 10, a Levy process in 32 and a 16 x 16 Gaussian field behind a box, each with one method of every kind
Hardware: two CPU cores, about 16 minutes (29 CPU minutes)
Expected: exact methods at the floor on the Gaussians; particle methods approach it on the mixtures as particles grow
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for three methods, "field" for the Gaussian field with more methods.

    `reduced` holds what a problem has in the place of the common numbers and methods; `methods` overrules it.
    """
    config = ConfigDict()
    config.name = "exact_lab"
    config.problems = "gaussian8,mixture8,bipsda,levy,field"
    config.methods = ""
    config.seed = 0
    config.rows = 24
    config.tuning_rows = 3
    config.draws = 256
    config.projections = 100
    kinds = "MMPS,PiGDM likelihood,DPS,DDNM+,DDRM,DiffPIR,DAPS conjugate,PnP-DM,SITCOM"
    config.reduced = {
        "bipsda": {"methods": f"{kinds},DAPS,TDS 16,MCGDiff 16"},
        "levy": {"methods": f"{kinds},TDS 16,MCGDiff 16", "draws": 128},
        "field": {"methods": f"{kinds},DDNM,RePaint,ReGuidance(DDRM)", "draws": 64},
    }
    if mode == "smoke":
        config.update(
            name="exact_lab_smoke",
            problems="gaussian8",
            methods="MMPS,DDRM,MCGDiff 16",
            rows=20,
            draws=32,
        )
    elif mode == "field":
        config.update(
            name="exact_lab_field",
            problems="field",
            methods="MMPS,PiGDM likelihood,DPS,DDNM,DDNM+,DDRM,RePaint,DiffPIR,DAPS conjugate,ReGuidance(DDRM)",
            draws=64,
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/exact_lab.py knows '', 'smoke' and 'field'")
    return config
