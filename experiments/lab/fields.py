"""What a configuration of the exact lab may hold."""

from __future__ import annotations

from collections.abc import Mapping

from ml_collections import ConfigDict

from diffinv import schema
from experiments.common.commandline import listed
from experiments.lab.problems import PROBLEMS, settings
from experiments.methods.lab import ROWS

LIMIT = 4 * 2**30  # bytes of one problem's samples
FLOATS = {"gaussian8": 24, "mixture8": 24, "bipsda": 30, "levy": 1344, "field": 768}
"""Numbers a draw that a problem keeps at once: exact samples, the floor's and a method's; levy's chains besides."""


def _names(known: Mapping[str, object], meaning: str) -> schema.Field:
    return schema.either(schema.exactly("", "'' for all"), schema.choices(list(known), meaning))


OWN: schema.Schema = {
    "methods": _names(ROWS, "the rows of the table"),
    "rows": schema.whole("random problems that are reported", low=2, high=100_000),
    "tuning_rows": schema.whole("other problems, on which the hyperparameter is chosen", low=1, high=10_000),
    "draws": schema.whole("samples a problem and method, and exact ones", low=2, high=10_000_000),
    "projections": schema.whole("random directions of the sliced distances", low=1, high=100_000),
}


def fields(config: ConfigDict) -> schema.Schema:
    """The schema; `reduced` holds for some problems any of what all have in common."""
    reduced = config.get("reduced")
    sections = reduced.to_dict() if isinstance(reduced, ConfigDict) else {}
    some = lambda own: {name: field for name, field in OWN.items() if not isinstance(own, dict) or name in own}
    return {
        "name": schema.component("the folder of the results under --out"),
        "problems": _names(PROBLEMS, "the problems"),
        "seed": schema.whole("of problems and samples", low=0),
        **OWN,
        "reduced": {which: some(own) for which, own in sections.items() if which in PROBLEMS},
    }


def check(config: ConfigDict) -> None:
    """Raises ValueError where the samples of a problem would take more than `LIMIT` bytes."""
    for which in listed(config.problems) or PROBLEMS:
        own = settings(config, which)
        size = 8 * FLOATS[which] * (own.rows + own.tuning_rows) * own.draws
        if size > LIMIT:
            raise ValueError(
                f"config.rows and config.draws of {which} are {own.rows} and {own.draws}, whose samples take "
                f"{size / 2**30:.3g} GiB; the limit is {LIMIT / 2**30:g} GiB: give fewer of them"
            )
