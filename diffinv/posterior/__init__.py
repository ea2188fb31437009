"""Posterior sampling: guidance transforms the prior, methods write a step, wrappers take a solver."""

from diffinv.posterior import laws
from diffinv.posterior.annealing import daps, dapspp, dpnp, pnpdm
from diffinv.posterior.baselines import total_variation, zero_filled
from diffinv.posterior.blackbox import dpg, dps_gsg, scg
from diffinv.posterior.blind import blind_dps
from diffinv.posterior.core import calibration, chains, moments, proximal, resampling, rewards
from diffinv.posterior.ensembles import eki, enkg
from diffinv.posterior.gradient import diffstategrad, dps, lgd, mcg, pgdm
from diffinv.posterior.guidance import autoguidance, cfg, dps_score, mmps, pigdm, tmpd
from diffinv.posterior.latent import psld, resample
from diffinv.posterior.particles import ddsmc, fps, mcgdiff, tds
from diffinv.posterior.plugged import pnp_admm, red
from diffinv.posterior.projection import ddnm, ddnm_plus, ddrm, repaint, travel
from diffinv.posterior.regularised import tikhonov, wiener
from diffinv.posterior.splitting import dcdp, diffpir, flair, flowdps, sitcom
from diffinv.posterior.untrained import deep_image_prior
from diffinv.posterior.variational import dmplug, mgdm, mgps, reddiff
from diffinv.posterior.wrappers import account, best_of, reguidance, restarts, warm_start

__all__ = [
    "account",
    "autoguidance",
    "best_of",
    "blind_dps",
    "calibration",
    "cfg",
    "chains",
    "daps",
    "dapspp",
    "dcdp",
    "ddnm",
    "ddnm_plus",
    "ddrm",
    "ddsmc",
    "deep_image_prior",
    "diffpir",
    "diffstategrad",
    "dmplug",
    "dpg",
    "dpnp",
    "dps",
    "dps_gsg",
    "dps_score",
    "eki",
    "enkg",
    "flair",
    "flowdps",
    "fps",
    "laws",
    "lgd",
    "mcg",
    "mcgdiff",
    "mgdm",
    "mgps",
    "mmps",
    "moments",
    "pgdm",
    "pigdm",
    "pnp_admm",
    "pnpdm",
    "proximal",
    "psld",
    "red",
    "reddiff",
    "reguidance",
    "repaint",
    "resample",
    "resampling",
    "restarts",
    "rewards",
    "scg",
    "sitcom",
    "tds",
    "tikhonov",
    "tmpd",
    "total_variation",
    "travel",
    "warm_start",
    "wiener",
    "zero_filled",
]
