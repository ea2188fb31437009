"""One line here buys a process or a sampler its whole battery; blurring processes act on 8 x 8 coefficients."""

import jax
import jax.numpy as jnp

from diffinv import process, samplers

FREQUENCIES = process.dct_frequencies(8, 8)

PROCESSES = {
    "vp": process.VP(),
    "ddpm": process.ddpm(),
    "cosine": process.Cosine(),
    "ve": process.VE(),
    "edm": process.EDM(),
    "flow": process.Flow(),
    "resshift": process.ResidualShift(kappa=2.0, power=0.5),
    "ctmsr": process.ResidualShift(),
    "blurring": process.Blurring(FREQUENCIES),
    "strong_blurring": process.Blurring(FREQUENCIES, sigma_blur=1000.0, d_min=1e-12),
    "heat": process.HeatDissipation(FREQUENCIES),
    "strong_heat": process.HeatDissipation(FREQUENCIES, blur_max=1000.0),
}
ISOTROPIC = [name for name, instance in PROCESSES.items() if jnp.ndim(instance.alpha(0.5)) == 0]

SAMPLERS = {
    "ddim": samplers.ddim,
    "ddim_half": lambda prior: samplers.ddim(prior, 0.5),
    "ancestral": samplers.ancestral,
    "euler": samplers.euler,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_3m": samplers.dpmpp_3m,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "unipc": samplers.unipc,
    "churn": lambda prior: samplers.churn(prior, 40),
    "predictor_corrector": samplers.predictor_corrector,
    "annealed_langevin": samplers.annealed_langevin,
    "renoise": samplers.renoise,
}
ANY_PROCESS = {"ddim", "ddim_half", "ancestral", "euler", "heun", "annealed_langevin", "renoise"}
"""The samplers that take a process with an alpha for every frequency; all others refuse it."""


def in_dtype(tree, dtype):
    """The tree with its arrays in `dtype`; Python numbers follow by themselves."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if isinstance(leaf, jax.Array) else leaf, tree)
