"""docs/configuration.md out of the declarations that commands check their configurations by.

    python -m experiments.fields_page > docs/configuration.md

A test compares the page with what this prints.
"""

from __future__ import annotations

from types import ModuleType

from configs import (
    augment_few_shot,
    autoencoder,
    blurring32,
    ctmsr_x4,
    exact_lab,
    ict32,
    latent_prior,
    prior32,
    reconstruct,
    scalespace,
    stackgan_v2_digits,
)
from configs.tables import reguidance
from diffinv import schema
from experiments.augmenting import fields as augment_fields
from experiments.common.commandline import Fields
from experiments.evaluation import fields as evaluation
from experiments.lab import fields as lab_fields
from experiments.restore import fields as restoration
from experiments.scales import fields as scalespace_fields
from experiments.tasks import fields as train_fields

COMMANDS: list[tuple[str, ModuleType, Fields]] = [
    ("reconstruct", reconstruct, restoration.FIELDS),
    ("evaluate", reguidance, evaluation.FIELDS),
    ("exact_lab", exact_lab, lab_fields.fields),
    ("scalespace", scalespace, scalespace_fields.FIELDS),
    ("augment", augment_few_shot, augment_fields.fields),
    *(("train", file, train_fields.fields) for file in (prior32, ict32, ctmsr_x4, blurring32, stackgan_v2_digits)),
    *(("train", file, train_fields.fields) for file in (autoencoder, latent_prior)),
]
HEAD = """# Configurations, field by field

A configuration is a Python file whose `get_config()` returns an `ml_collections.ConfigDict`. `--config=FILE` names it,
`--config=FILE:smoke` its quick variant, and `--config.FIELD=VALUE` sets one field. Copy a shipped file to make your
own; it carries the fields below and no others. All is checked before anything is read or compiled, and what is refused
is named with its value and with what to give instead. `--help` of a command prints the same lines.

A command ends with status 0, 1 where something given is wrong, 130 after Ctrl-C, which it hears within a moment and
which leaves whole what was finished; `reconstruct` with 2 where every reconstruction failed.

This page is made from the declarations: `python -m experiments.fields_page > docs/configuration.md`.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for command, file, fields in COMMANDS:
        config = file.get_config()
        table = schema.markdown(fields(config) if callable(fields) else fields, config.to_dict())
        where = f"{file.__name__.replace('.', '/')}.py"
        parts.append(f"## `python -m experiments.{command} --config={where}`\n\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
