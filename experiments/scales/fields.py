"""What a configuration of the page of scale-spaces may hold."""

from __future__ import annotations

from ml_collections import ConfigDict

from diffinv import schema

DATA = ("digits", "photographs", "patterns")
SIDES = ("digits", "network")

FIELDS: schema.Schema = {
    "name": schema.component("the folder of the results under --out"),
    "data": schema.choices(DATA, "whose laws are measured"),
    "crops": schema.whole("32 x 32 pixels each, out of the photographs", low=2, high=10_000),
    "draws": schema.whole("of the Monte-Carlo estimates", low=2, high=1_000_000),
    "times": schema.whole("of the truth table", low=3, high=1001),
    "curve": schema.whole("times of the curves", low=2, high=1001),
    "strip": schema.whole("pictures of a strip, out of the curve's times", low=1, high=101),
    "sigma_blur": schema.several(schema.number("of blurring diffusion", above=0, high=1e4, unit="pixels"), 1, 8),
    "blur_max": schema.number("of heat dissipation and homogeneous diffusion", above=0.5, high=1e4, unit="pixels"),
    "delta": schema.number("heat dissipation's noise; the curves' resolution", above=0, high=10, unit="grey values"),
    "offset": schema.number("of the noise guide, and added to pictures for osmosis", above=0, high=1e3),
    "features": schema.either(
        schema.exactly(0, "0 for the pixels themselves"),
        schema.whole("side of the feature network's input", low=32, high=512, unit="pixels"),
    ),
    "reverse": schema.either(schema.exactly("", "'' for none"), schema.choices(SIDES, "the reverse side")),
    "levels": schema.whole("SNRs of the I-MMSE integrals", low=8, high=100_000),
    "matched": schema.whole("samples a side of marginal matching", low=8, high=1797),
    "pictures": schema.path("the network's own data, for memorisation; '' for photographs in their place"),
    "network_images": schema.whole("pictures that the network is measured on", low=8, high=100_000),
    "network_levels": schema.whole("levels of noise there", low=9, high=10_000),
    "seed": schema.whole("of all draws", low=0),
}


def check(config: ConfigDict) -> None:
    """Raises ValueError for a width of blurring that is there twice: its columns would be one."""
    names = [f"{width:g}" for width in config.sigma_blur]
    if len(set(names)) < len(names):
        raise ValueError(f"config.sigma_blur is {tuple(config.sigma_blur)}; give widths that differ")
