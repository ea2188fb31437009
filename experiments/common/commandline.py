"""Flags and configurations from declarations: one `schema.Field` each makes the help and the one line of a refusal.

    CONFIG = runtime.config_flag("configs/x.py", "a configuration", FIELDS)
    STEPS = runtime.flag("steps", 100, schema.whole("of dps", low=2))

`FIELDS` is a schema, or a function from the configuration to one where that depends on it. A configuration carries the
fields of its schema and no others; all is checked before `main` starts.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from diffinv import schema

flags.disclaim_key_flags()  # a flag belongs to the command that asks for it, and so to its --help

Fields = schema.Schema | Callable[[ConfigDict], schema.Schema]
HELP = ("--help", "-help", "--helpshort", "-h", "-?", "--h")
CONFIGS: dict[str, tuple[Fields | None, Callable[[ConfigDict], None] | None]] = {}
FIELDS: dict[str, schema.Field] = {}


def fail(line: str, status: int = 1) -> NoReturn:
    """One line on standard error, and the exit status."""
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(status)


def listed(text: str) -> list[str]:
    """The names in a text with commas between them; none of an empty one."""
    return [name.strip() for name in text.split(",") if name.strip()]


class _Parser(flags.ArgumentParser):
    """Reads a text as its field's kind; whether it is accepted is asked once for all flags, after parsing."""

    def __init__(self, field: schema.Field) -> None:
        self.field = field

    def parse(self, argument: Any) -> Any:
        return schema.parsed(self.field, argument) if isinstance(argument, str) else argument

    def flag_type(self) -> str:
        return self.field.kind.__name__


def flag(name: str, default: Any, field: schema.Field, required: bool = False) -> flags.FlagHolder:
    """The flag --name, whose value is what `field` accepts, or the default."""
    unit = f" ({field.unit})" if field.unit else ""
    text = f"{field.meaning}; {field.wanted}{unit}"
    FIELDS[name] = field
    if field.kind is bool:
        return flags.DEFINE_bool(name, default, text, required=required)
    serializer = flags.ListSerializer(",") if field.listed else flags.ArgumentSerializer()
    return flags.DEFINE(_Parser(field), name, default, text, serializer=serializer, required=required)


def config_flag(
    default: str | None,
    text: str,
    fields: Fields | None = None,
    check: Callable[[ConfigDict], None] | None = None,
) -> flags.FlagHolder:
    """The flag --config, a Python file with `get_config()`, and --config.FIELD for each of its fields.

    `check(config)` raises ValueError for fields that are right alone and wrong together.
    """
    CONFIGS["config"] = fields, check
    with _one_line():
        _look_at(_named(sys.argv, "config"))
        if isinstance(fields, Mapping):
            _look_over(sys.argv, fields)
        return config_flags.DEFINE_config_file("config", default, text)


def _named(arguments: list[str], name: str) -> str | None:
    """The value of --name on the command line."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if argument in (f"--{name}", f"-{name}"):
            return following
        if argument.startswith((f"--{name}=", f"-{name}=")):
            return argument.partition("=")[2]
    return None


def _look_at(path: str | None) -> None:
    """Raises ValueError for what is no configuration before it runs: missing, no file, no Python, no `get_config`."""
    if path is None:
        return
    file, line = path.split(":", 1)[0], "give a Python file with get_config(), as configs/*.py"
    if not os.path.isfile(file):
        raise ValueError(f"--config is {path!r}, and there is no such file; {line}")
    try:
        with open(file, "rb") as content:
            tree = ast.parse(content.read(2**22), file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(f"--config is {path!r}, which is not Python ({error.args[0]}{where}); {line}") from None
    names = {getattr(node, "name", "") for node in tree.body} | set(_bound(tree))
    if "get_config" not in names:
        raise ValueError(f"--config is {path!r}, which defines no get_config; {line}")


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that a module imports or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def declared(fields: schema.Schema, path: str) -> schema.Field | schema.Schema:
    """The field of "config.a.b". Raises ValueError, which names the nearest, where the schema has none."""
    name, *keys = path.split(".")
    for key in keys:
        if isinstance(fields, schema.Field):
            raise ValueError(f"{name} has no fields, and so no {key!r}; see --help")
        if key not in fields:
            raise ValueError(f"{name} has no field {key!r}; {schema.nearest(key, list(fields))}")
        fields, name = fields[key], f"{name}.{key}"
    return fields


def _look_over(arguments: list[str], fields: schema.Schema) -> None:
    """Raises ValueError for --config.FIELD=VALUE where no such field is, or where the text is none of its values."""
    for argument in arguments:
        found = re.match(r"--?(config(?:\.\w+)+)(?:=(.*))?$", argument, re.DOTALL)
        if found is None:
            continue
        field, written = declared(fields, found[1]), found[2]
        if written is None or isinstance(field, schema.Field) and field.listed:
            continue
        if not isinstance(field, schema.Field):
            raise ValueError(f"{found[1]} is a section; set its fields, as --{found[1]}.{next(iter(field))}=VALUE")
        if field.kind is not str and (line := schema.refusal(field, schema.parsed(field, written), found[1])):
            raise ValueError(line)


class _one_line:
    """Ends the command with one line for a bad flag, and for whatever a configuration file of the user's raises."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, flags.IllegalFlagValueError):
            fail(_illegal(error))
        if isinstance(error, (flags.Error, ValueError, OSError)):
            fail(str(error))
        if isinstance(error, Exception):
            path = (_named(sys.argv, "config") or "").split(":", 1)[0]
            calls = [call for call in traceback.extract_tb(trace) if path and call.filename == path]
            if calls:
                fail(f"--config is {path!r}, whose line {calls[-1].lineno} raises {type(error).__name__}: {error}")
            if isinstance(error, (AttributeError, KeyError, TypeError)):  # of ml_collections, for an unknown field
                said = str(error.args[0] if error.args else type(error).__name__)
                fail(f"config has no such field: {said.strip(chr(34) + chr(39))}; see --help")


def _by_field(path: str, written: str) -> str:
    """The refusal of --config.FIELD by a schema that depends on the configuration; "" where there is none."""
    fields, config = CONFIGS["config"][0], flags.FLAGS["config"].value
    if not callable(fields) or not isinstance(config, ConfigDict):
        return ""
    field = declared(fields(config), path)
    return schema.refusal(field, schema.parsed(field, written), path) if isinstance(field, schema.Field) else ""


def _illegal(error: flags.IllegalFlagValueError) -> str:
    """absl's line about a bad text, as the flag's field says it; of a configuration's own error, the last line."""
    text = str(error)
    found = re.match(r"flag --(\w+)=(.*?): ", text, re.DOTALL)
    if found and found[1] in FIELDS:
        return schema.refusal(FIELDS[found[1]], found[2], f"--{found[1]}") or text
    if found := re.match(r"flag --(config(?:\.\w+)+)=(.*?): ", text, re.DOTALL):
        return _by_field(found[1], found[2]) or text
    if "Unexpected None value" in text:
        return f"--config is {_named(sys.argv, 'config')!r}, whose get_config returns None; return a ConfigDict"
    if "Traceback (most recent call last)" in text:
        return f"--config is {_named(sys.argv, 'config')!r}, which raises {text.strip().splitlines()[-1]}"
    return text


def parse(arguments: list[str], positional: bool) -> list[str]:
    """The arguments that are no flags. Ends the command with one line where a flag, or the configuration, is bad."""
    asked = any(argument in HELP for argument in arguments[1:])
    with _one_line():
        if asked:
            with contextlib.suppress(flags.Error):  # a flag that is required and missing, say
                flags.FLAGS([a for a in arguments if a not in HELP], known_only=True)
            explain()
            sys.exit(0)
        rest = flags.FLAGS(arguments)
        for line in refusals():
            raise ValueError(line)
    if len(rest) > 1 and not positional:
        fail(f"unexpected argument {rest[1]!r}; options start with --, see --help")
    return rest


def refusals() -> Iterator[str]:
    """The lines that refuse flags and configuration as they are parsed."""
    for name, field in FIELDS.items():
        given = flags.FLAGS[name]
        if given.present and (line := schema.refusal(field, given.value, f"--{name}")):
            yield line
    for name, (fields, check) in CONFIGS.items():
        config = flags.FLAGS[name].value
        if config is None and not flags.FLAGS[name].present or fields is None:
            continue
        if not isinstance(config, ConfigDict):
            path = _named(sys.argv, name)
            yield f"--{name} is {path!r}, whose get_config returns a {type(config).__name__}; return a ConfigDict"
            continue
        chosen = fields(config) if callable(fields) else fields
        yield from schema.refusals(chosen, config.to_dict(), name)
        if check:
            check(config)


def explain() -> None:
    """Prints the command's text, its flags, and every field of its configuration."""
    app.usage(shorthelp=True, writeto_stdout=True)
    for name, (fields, _) in CONFIGS.items():
        config = flags.FLAGS[name].value
        if fields is None or not isinstance(config, ConfigDict):
            continue
        chosen = fields(config) if callable(fields) else fields
        print("\nfields of the configuration:")
        print(schema.explain(chosen, config, name))
