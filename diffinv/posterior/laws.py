"""Which method honours which law of the noise: one table, from which its page is written and which a test runs.

A law is a `Noise`: how y is drawn, and `log p(y | A x)`. Only some methods ask for the latter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from diffinv.describe import described
from diffinv.posterior.core import chains, proximal, rewards

USES: dict[str, str] = {
    "likelihood": "any law, by its likelihood",
    "chain": "any law, by its likelihood; its `sigma`, or `tau` where there is one, sets the length of a step",
    "weights": "any law with a `sigma`: Gaussian of it to propose, and in the end weighed by its likelihood",
    "gaussian": "taken as Gaussian of `measurement.sigma`, whatever the law; one without a `sigma` is refused",
    "residual": "not looked at: least squares of `y - A x`, whatever the law",
    "refused": "Gaussian alone; another law is refused",
}
"""What a method makes of the law of the noise. `measurement.sigma` of `PoissonNoise` is its deviation at mid-grey."""


@described
class Law(NamedTuple):
    """A method under the options that matter here.

    Attributes:
      method: its name in `posterior`.
      uses: what it uses of the noise, a key of `USES`.
      options: its arguments, by name.
    """

    method: str
    uses: str
    options: dict[str, Any] = {}


LAWS: tuple[Law, ...] = (
    Law("dps", "residual"),
    Law("dps", "likelihood", {"reward": rewards.likelihood}),
    Law("dps_score", "residual"),
    Law("dps_score", "likelihood", {"reward": rewards.likelihood}),
    Law("diffstategrad", "residual"),
    Law("diffstategrad", "likelihood", {"reward": rewards.likelihood}),
    Law("lgd", "residual"),
    Law("lgd", "likelihood", {"reward": rewards.cloud_likelihood}),
    Law("mcg", "residual"),
    Law("mgps", "likelihood"),
    Law("mgdm", "likelihood"),
    Law("daps", "chain"),
    Law("daps", "chain", {"chain": chains.hmc()}),
    Law("daps", "chain", {"chain": chains.metropolis()}),
    Law("daps", "refused", {"chain": chains.conjugate()}),
    Law("daps", "refused", {"chain": chains.rto()}),
    Law("dapspp", "chain"),
    Law("pnpdm", "refused"),
    Law("pnpdm", "chain", {"chain": chains.langevin()}),
    Law("dpnp", "refused"),
    Law("dpnp", "chain", {"chain": chains.langevin()}),
    Law("tds", "weights"),
    Law("ddsmc", "weights"),
    Law("mcgdiff", "gaussian"),
    Law("fps", "gaussian"),
    Law("pigdm", "gaussian"),
    Law("pgdm", "gaussian"),
    Law("mmps", "gaussian"),
    Law("tmpd", "gaussian"),
    Law("ddrm", "gaussian"),
    Law("ddnm_plus", "gaussian"),
    Law("ddnm_plus", "gaussian", {"spectral": False}),
    Law("diffpir", "gaussian"),
    Law("diffpir", "gaussian", {"prox": proximal.gradient}),
    Law("ddnm", "residual"),
    Law("repaint", "residual"),
    Law("sitcom", "residual"),
    Law("flowdps", "residual"),
    Law("flowdps", "likelihood", {"reward": rewards.likelihood}),
    Law("flair", "gaussian"),
    Law("dcdp", "residual"),
    Law("reddiff", "residual"),
    Law("dmplug", "residual"),
    Law("dmplug", "likelihood", {"reward": rewards.likelihood}),
    Law("psld", "residual"),
    Law("resample", "residual"),
    Law("blind_dps", "residual"),
    Law("blind_dps", "likelihood", {"reward": rewards.likelihood}),
    Law("zero_filled", "residual"),
    Law("total_variation", "residual"),
    Law("tikhonov", "residual"),
    Law("wiener", "gaussian"),
    Law("pnp_admm", "gaussian"),
    Law("pnp_admm", "gaussian", {"prox": proximal.gradient}),
    Law("red", "gaussian"),
    Law("red", "gaussian", {"prox": proximal.gradient}),
    Law("deep_image_prior", "residual"),
    Law("enkg", "residual"),
    Law("eki", "gaussian"),
    Law("eki", "gaussian", {"codes": False}),
    Law("dps_gsg", "residual"),
    Law("dpg", "residual"),
    Law("scg", "residual"),
    Law("best_of", "residual"),
)
"""Every method and wrapper that looks at the measurement itself; the other wrappers pass it on."""


def spelled(value: Any) -> str:
    """The value of an option as it is written in a call. Original."""
    return f"chains.{type(value).__name__.lower()}()" if isinstance(value, chains.InnerChain) else repr(value)


def _row(law: Law) -> str:
    options = ", ".join(f"{name}={spelled(value)}" for name, value in law.options.items())
    return f"| `{law.method}` | {f'`{options}`' if options else 'default'} | {law.uses} |"


def page() -> str:
    """The documentation's page as Markdown, a string."""
    return f"""# Which solver honours which law of the noise

This page is written from `diffinv.posterior.laws` and checked against what each method asks of the noise.

A measurement carries its law: `di.GaussianNoise(sigma)`, `di.PoissonNoise(peak)`, one of `di.noises` (`LaplaceNoise`,
`UniformNoise`, `GammaNoise`, `LogPoissonNoise`, `PoissonGaussianNoise`, `RicianNoise`, `SaltAndPepperNoise`; gamma,
log-Poisson and salt and pepper have no one deviation, and no `sigma`), or one of your own, a `di.Noise`
with `sample(key, clean)` and `log_likelihood(y, clean)`, and with a property `sigma`, its standard deviation, for the
methods that need one:

```python
{EXAMPLE}```

What a solver makes of it:

| | |
|---|---|
{chr(10).join(f"| {name} | {meaning} |" for name, meaning in USES.items())}

| method | options | uses |
|---|---|---|
{chr(10).join(map(_row, LAWS))}

ReGuidance, restarts and warm starts honour what the solvers inside them do. `pigdm`, `mmps`, `ddrm` and the others that
take a law as Gaussian are exact, or near it, for that law alone: for photons at a low count or for heavy tails use a
method of the first two kinds.
"""


EXAMPLE = '''@struct.dataclass
class Laplace(di.Noise):
    """Heavy tails: `p(y | clean) ~ exp(-|y - clean| / scale)`."""

    scale: float

    def sample(self, key, clean):
        return clean + self.scale * jax.random.laplace(key, clean.shape, clean.dtype)

    def log_likelihood(self, y, clean):
        return -jnp.sum(jnp.abs(y - clean)) / self.scale
'''
"""A law of one's own."""
