"""What a PyTorch process runs for `benchmarks.sampling`: DDIM and DPS around the same network, and deepinv's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sampling import CONDITION, PROBLEMS, ZETA, Programs, noise


def torch_programs(steps: int, names: list[str], prior: str) -> Programs:
    """DDIM and DPS as one writes them in PyTorch, and deepinv's own around the same network."""
    import torch

    from benchmarks import torch_convnet, torch_unet
    from diffinv import weights
    from experiments.common import runtime

    torch.set_num_threads(runtime.cores())
    asked = PROBLEMS[prior]
    params, card = weights.restore(weights.embedded(prior))
    shape = asked.shape or tuple(card["shape"])
    load = torch_convnet.load if weights.any_size(card) else torch_unet.load
    net = load(weights.widened(params), weights.architecture(card), shape[2])
    sigma_data = card["parametrisation"]["sigma_data"]

    def nchw(x: np.ndarray) -> Any:
        return torch.from_numpy(x).permute(0, 3, 1, 2)  # a view: channels_last in memory

    def denoise(x: Any, alpha: Any, sigma: Any) -> Any:
        log_r = torch.log(torch.as_tensor(sigma / alpha, dtype=torch.float32)).clamp(np.log(0.002), np.log(80.0))
        weight = (sigma**2 + (alpha * sigma_data) ** 2) ** 0.5
        out = net(x / weight, log_r.reshape(1) / 4)
        return sigma_data**2 * alpha / weight**2 * x + sigma * sigma_data / weight * out

    clock = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    alphas = torch.exp(-0.25 * clock**2 * 19.9 - 0.05 * clock)
    sigmas = torch.sqrt(1 - alphas**2).tolist()
    alphas = alphas.tolist()
    grid = list(zip(alphas[:-1], sigmas[:-1], alphas[1:], sigmas[1:]))
    start, quarter = nchw(noise(shape, batch=asked.batch)), shape[0] // 4
    mask = torch.ones(1, 1, *shape[:2])
    mask[:, :, quarter : 3 * quarter, quarter : 3 * quarter] = 0
    y = (mask * torch.tanh(nchw(noise(shape, 1, asked.batch)))).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def ddim() -> Any:
        x = start
        for a_t, s_t, a_s, s_s in grid:
            x0 = denoise(x, a_t, s_t)
            x = a_s * x0 + s_s / s_t * (x - a_t * x0)
        return x

    def dps() -> Any:
        x = start
        for a_t, s_t, a_s, s_s in grid:
            x = x.detach().requires_grad_()
            x0 = denoise(x, a_t, s_t)
            gradient = torch.autograd.grad(torch.linalg.vector_norm((y - mask * x0).flatten(1), dim=1).sum(), x)[0]
            with torch.no_grad():
                kept = (a_t * s_s / (a_s * s_t)) ** 2
                mean = a_s * x0 + s_s / s_t * kept**0.5 * (x - a_t * x0)
                x = mean + s_s * (1 - kept) ** 0.5 * torch.randn_like(x) - ZETA * gradient
        return x

    programs = {"network": lambda: net(start, torch.tensor([CONDITION])), "ddim": ddim, "dps": dps}
    if any(name.startswith("deepinv") for name in names):
        programs |= deepinv_programs(denoise, mask, y, clock)
    return {name: lambda f=programs[name]: f().detach().permute(0, 2, 3, 1).numpy() for name in names}


def deepinv_programs(denoise: Callable[..., Any], mask: Any, y: Any, clock: Any) -> Programs:
    """deepinv's DDIM solver of its VP process and its DPS, as its documentation builds them, states in [-1, 1]."""
    import deepinv
    from deepinv.sampling import DPS, DDIMSolver, PosteriorDiffusion, VariancePreservingDiffusion

    class Network(deepinv.models.Denoiser):
        def forward(self, x: Any, sigma: Any, *args: Any, **kwargs: Any) -> Any:
            return denoise(x, 1.0, sigma)

    shape, network = tuple(y.shape), Network()
    physics = deepinv.physics.Inpainting(img_size=shape[1:], mask=mask[0].expand(*shape[1:]))
    sde, solver = VariancePreservingDiffusion(alpha=0.0), DDIMSolver(timesteps=clock)
    ddim = PosteriorDiffusion(denoiser=network, sde=sde, solver=solver, minus_one_one=False)
    dps = DPS(network, num_steps=len(clock), weight=ZETA, minus_one_one=False)
    return {
        "deepinv_ddim": lambda: ddim(y, physics, x_init=shape),
        "deepinv_dps": lambda: dps(y, physics, x_init=shape),
    }
