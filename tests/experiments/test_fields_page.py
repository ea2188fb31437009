"""docs/configuration.md says what the commands check."""

from pathlib import Path

import pytest

from diffinv import schema
from experiments import fields_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_declarations():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == fields_page.page(), "run python -m experiments.fields_page > docs/configuration.md"


@pytest.mark.parametrize("file, fields", [each[1:] for each in fields_page.COMMANDS])
@pytest.mark.parametrize("mode", ["", "smoke"])
def test_what_ships_is_accepted_and_every_field_says_what_it_means(file, fields, mode):
    config = file.get_config(mode)
    fields = fields(config) if callable(fields) else fields
    assert not list(schema.refusals(fields, config.to_dict(), "config"))
    assert not [name for name, field in schema.flat_fields(fields) if not field.meaning]
