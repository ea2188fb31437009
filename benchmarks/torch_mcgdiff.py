"""MCGDiff on a mixture of unit Gaussians in PyTorch, eager, from its formulae: the yardstick of `benchmarks.mcgdiff`.

Source: Cardoso et al. 2024, arXiv:2308.07983; notation and what differs from the paper as in
`diffinv.posterior.mcgdiff`. States are (samples, particles, d), float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Problem(NamedTuple):
    """`y = A x + sigma n` of a mixture `sum_k w_k N(m_k, I)`: A (m, d), y (m,), weights (K,), means (K, d)."""

    A: np.ndarray
    y: np.ndarray
    sigma: float
    weights: np.ndarray
    means: np.ndarray


def schedule(steps: int) -> torch.Tensor:
    """abar at the steps + 1 levels, from noise to data: decreasing betas, `linspace(0.02, 1e-4, 999)`."""
    beta = torch.linspace(0.02, 1e-4, 999, dtype=torch.float64)
    abar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
    return abar[torch.linspace(999, 0, steps + 1).round().long()]


class MCGDiff:
    """The particle filters of any number of samples, side by side."""

    def __init__(self, problem: Problem, steps: int = 100, kappa: float = 1e-6, eta: float = 0.6) -> None:
        U, s, Vh = torch.linalg.svd(torch.as_tensor(problem.A, dtype=torch.float64))
        y_bar, width = U.T @ torch.as_tensor(problem.y) / s, problem.sigma / s
        self.abar, self.eta = schedule(steps), eta
        self.tau = torch.argmin((self.abar[:, None] * width**2 - (1 - self.abar[:, None])).abs(), 0)
        root, exact = self.abar.sqrt()[:, None], 1 - self.abar[:, None] * (1 + width**2)
        self.o = (root * y_bar).float()
        self.v = (exact.clamp(min=0) + kappa * self.abar[:, None] * (1 + width**2)).float()
        self.Vh, self.d, self.m = Vh.float(), Vh.shape[0], len(s)
        self.means = torch.as_tensor(problem.means, dtype=torch.float32)
        self.log_weights = torch.as_tensor(problem.weights).log().float()

    def denoise(self, x: torch.Tensor, abar: float) -> torch.Tensor:
        """`E[x_0 | x_t] = alpha x + sigma^2 sum_k r_k m_k`."""
        alpha = abar**0.5
        logits = alpha * (x @ self.means.T) + (self.log_weights - 0.5 * abar * (self.means**2).sum(1))
        return alpha * x + (1 - abar) * (torch.softmax(logits, -1) @ self.means)

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """The noisy end, its observed coordinates conditioned."""
        at, sigma2 = x @ self.Vh.T, 1 - float(self.abar[0])
        gain = sigma2 / (sigma2 + self.v[0])
        at[..., : self.m] = gain * self.o[0] + (1 - gain).sqrt() * at[..., : self.m]
        return at @ self.Vh

    def step(self, x: torch.Tensor, i: int) -> torch.Tensor:
        """Weights, multinomial resampling and proposal, from level i to level i + 1."""
        abar, abar_s = float(self.abar[i]), float(self.abar[i + 1])
        std = self.eta * ((1 - abar_s) / (1 - abar) * (1 - abar / abar_s)) ** 0.5
        x0 = self.denoise(x, abar)
        eps = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
        mean = (abar_s**0.5 * x0 + (1 - abar_s - std**2) ** 0.5 * eps) @ self.Vh.T
        live = torch.nonzero(self.tau > i).squeeze(1)  # whose tau is not yet behind
        o, v = self.o[i + 1, live], self.v[i + 1, live]
        behind = ((x @ self.Vh[live].T - self.o[i, live]) ** 2 / self.v[i, live]).sum(-1)
        ahead = ((o - mean[..., live]) ** 2 / (std**2 + v)).sum(-1)
        index = torch.multinomial(torch.softmax(0.5 * (behind - ahead), -1), x.shape[1], replacement=True)
        mean = mean.gather(1, index[..., None].expand_as(mean))
        gain, deviation = torch.zeros(self.d), torch.full((self.d,), std)
        gain[live] = std**2 / (std**2 + v)
        deviation[live] = (gain[live] * v).sqrt()
        target = torch.zeros(self.d)
        target[live] = o
        return (mean + gain * (target - mean) + deviation * torch.randn_like(mean)) @ self.Vh

    @torch.no_grad()
    def __call__(self, samples: int, particles: int = 128, chunk: int = 1000) -> torch.Tensor:
        """(samples, d), one particle of each filter; `chunk` filters at a time."""
        sigma, found = (1 - float(self.abar[0])) ** 0.5, []
        for count in torch.arange(samples).split(chunk):
            x = self.start(sigma * torch.randn(len(count), particles, self.d))
            for i in range(len(self.abar) - 1):
                x = self.step(x, i)
            found.append(x[torch.arange(len(count)), torch.randint(particles, (len(count),))])
        return torch.cat(found)
