"""Configurations and flags by declaration: what is refused before anything starts, and in which line."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict

from diffinv import schema
from experiments.common import commandline, runtime

FIELDS = {"zeta": schema.number("step", above=0), "daps": {"steps": schema.whole("levels", low=1)}}
MORE = {"clip": schema.switch(), "name": schema.component(), "levels": schema.several(schema.number())}


def configuration(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", "not Python (invalid syntax, line 1)"),
        ("[1, 2", "not Python ('[' was never closed, line 1)"),
        ("\0", "not Python"),
        ("(" * 5000, "not Python"),
        ("config = 3", "defines no get_config"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_before_it_runs(tmp_path, text, words):
    path = configuration(tmp_path, text)
    with pytest.raises(ValueError) as error:
        commandline._look_at(path)
    assert words in str(error.value) and path in str(error.value) and "give a Python file" in str(error.value)


@pytest.mark.parametrize("text", ["def get_config(mode=''): pass", "from a import get_config", "get_config = dict"])
def test_a_file_that_defines_it_in_any_way_is_looked_at(tmp_path, text):
    commandline._look_at(configuration(tmp_path, text) + ":smoke")
    with pytest.raises(ValueError, match="defines no get_config"):
        commandline._look_at(configuration(tmp_path, text.replace("get_config", "other")) + ":smoke")


def test_a_missing_file_is_named(tmp_path):
    for path in (str(tmp_path / "none.py"), str(tmp_path)):
        with pytest.raises(ValueError, match="there is no such file"):
            commandline._look_at(path)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--config.zeta=nan", "config.zeta is nan; give a number above 0"),
        ("--config.zeta=much", "config.zeta is 'much'; give a number above 0"),
        (
            "--config.zita=1",
            "config has no field 'zita'; did you mean 'zeta'? known are zeta, daps, clip, name, levels",
        ),
        ("--config.daps.step=1", "config.daps has no field 'step'; did you mean 'steps'? known are steps"),
        ("--config.daps.steps=1.5", "config.daps.steps is '1.5'; give a whole number at least 1"),
        ("--config.clip=maybe", "config.clip is 'maybe'; give True or False"),
        ("--config.daps=3", "config.daps is a section; set its fields, as --config.daps.steps=VALUE"),
        ("--config.zeta.x=1", "config.zeta has no fields, and so no 'x'; see --help"),
    ],
)
def test_fields_on_the_command_line(argument, line):
    with pytest.raises(ValueError) as error:
        commandline._look_over(["command", argument], FIELDS | MORE)
    assert str(error.value) == line
    commandline._look_over(
        ["command", "--config.zeta=1", "--config.daps.steps=3", "--config=x.py", "--zeta=nan"], FIELDS | MORE
    )
    right = ["--config.clip", "--noconfig.clip", "--config.clip=true", "--config.name=any", "--config.levels=(1, 2)"]
    commandline._look_over(right, FIELDS | MORE)


class Parsed:
    """A flag as absl leaves it."""

    def __init__(self, value):
        self.value, self.present = value, 1


def lines(monkeypatch, config=None, fields=FIELDS, check=None, **given):
    """What is refused of a configuration and of flags."""
    found = {name: Parsed(value) for name, (_, value) in given.items()} | {"config": Parsed(config)}
    monkeypatch.setattr(commandline.flags, "FLAGS", found)
    monkeypatch.setattr(commandline, "FIELDS", {name: field for name, (field, _) in given.items()})
    monkeypatch.setattr(commandline, "CONFIGS", {"config": (fields, check)})
    return list(commandline.refusals())


def test_a_configuration_is_checked_whole(monkeypatch):
    good = ConfigDict({"zeta": 1.0, "daps": ConfigDict({"steps": 3})})
    assert lines(monkeypatch, good) == lines(monkeypatch, good, None) == []
    assert lines(monkeypatch, good, lambda config: {"zeta": FIELDS["zeta"]})[0].startswith("config has no field 'daps'")
    good.zeta = math.nan
    assert lines(monkeypatch, good) == ["config.zeta is nan; give a number above 0"]
    for other in ({"zeta": 1}, None, 3):
        assert lines(monkeypatch, other)[0].endswith(f"returns a {type(other).__name__}; return a ConfigDict")


def test_fields_that_are_wrong_together(monkeypatch):
    def check(config):
        raise ValueError("config.zeta and config.daps do not fit")

    with pytest.raises(ValueError, match="do not fit"):
        lines(monkeypatch, ConfigDict({"zeta": 1.0, "daps": ConfigDict({"steps": 3})}), check=check)


def test_flags_are_parsed_and_checked_by_their_field(monkeypatch):
    steps = schema.whole("steps", low=2)
    sizes = schema.several(schema.whole(low=1), least=1)
    good, bad = ConfigDict(), [("1", "1"), ("two", "'two'"), ("2.0", "'2.0'"), ("", "''")]
    for written, said in bad:
        value = commandline._Parser(steps).parse(written)
        assert lines(monkeypatch, good, None, steps=(steps, value)) == [f"--steps is {said}; give {steps.wanted}"]
    assert commandline._Parser(sizes).parse("1, 2") == [1, 2] and commandline._Parser(sizes).parse("") == []
    assert not lines(monkeypatch, good, None, sizes=(sizes, [1, 2])) and lines(
        monkeypatch, good, None, sizes=(sizes, [])
    )


def test_help_of_a_flag_comes_from_its_field():
    values = flags.FLAGS
    assert values["processes"].help == "how many processes there are; a whole number at least 1"


@pytest.mark.parametrize("devices", ["abc", "0", "-1", "1.5", "5000"])
def test_a_wrong_number_of_devices_is_named(monkeypatch, devices):
    monkeypatch.setenv("DIFFINV_DEVICES", devices)
    with pytest.raises(ValueError, match="^DIFFINV_DEVICES is '?" + devices + "'?; give a whole number at least 1"):
        runtime.devices()


@pytest.mark.parametrize("address", ["nonsense", "host:", ":80", "host:0", "host:70000", "a b:80", "http://host:80"])
def test_a_garbage_coordinator_is_refused_at_once(address):
    with pytest.raises(ValueError, match="^--coordinator is .*; give host:port"):
        runtime.coordinator(address)
    assert runtime.coordinator("127.0.0.1:8476") == "127.0.0.1:8476"


def test_a_folder_that_takes_no_files_is_noticed_before_the_work(tmp_path):
    assert runtime.writable(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "in it", "with\0zero", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match="^--out is .*no file can be written"):
            runtime.writable(place)


LONG = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with "&", tests too
from experiments.common import runtime
import jax, jax.numpy as jnp
def main():
    runtime.Preemption() if {watched} else None
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 10**9, lambda i, x: jnp.sin(x), x)).lower(jnp.ones(9999)).compile()
    print("started", flush=True)
    program(jnp.ones(9999)).block_until_ready()
runtime.run(main)
"""


@pytest.mark.parametrize(("watched", "sent", "status"), [(True, signal.SIGINT, 130), (False, signal.SIGTERM, -15)])
def test_a_signal_is_heard_inside_a_compiled_loop(watched, sent, status):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "DIFFINV_CACHE": os.environ.get("DIFFINV_CACHE", ".pytest_cache"),
    }
    environment.pop("XLA_FLAGS", None)
    command, pipe = [sys.executable, "-c", LONG.format(watched=watched)], subprocess.PIPE
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "started\n"
            time.sleep(0.3)
            process.send_signal(sent)
            start = time.monotonic()
            assert process.wait(30) == status
            assert time.monotonic() - start < 2
            said = process.stderr.read()
            assert sent != signal.SIGINT or said.strip() == "stopped by Ctrl-C; what was finished is kept"
        finally:
            process.kill()


def test_what_a_command_returns_raises_and_asks_of_the_main_thread():
    seen = []
    assert runtime._waited(lambda: 2) == 2
    runtime._waited(lambda: runtime.in_main_thread(lambda: seen.append(threading.current_thread())))
    assert seen == [threading.main_thread()]
    with pytest.raises(SystemExit, match="7"):
        runtime._waited(lambda: sys.exit(7))


def test_empty_programs_are_swept_out_of_the_cache(tmp_path):
    for name, content in {"empty": b"", "whole": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    runtime.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # one that is being written is empty, too
    runtime.sweep(tmp_path, age=-1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "whole"]
    runtime.sweep(tmp_path / "none")


def test_absl_speaks_as_the_field_does(monkeypatch):
    monkeypatch.setattr(commandline, "FIELDS", {"fresh": schema.switch()})
    said = flags.IllegalFlagValueError("flag --fresh=maybe: ('Non-boolean argument to boolean flag', 'maybe')")
    assert commandline._illegal(said) == "--fresh is 'maybe'; give True or False"
    monkeypatch.setattr(sys, "argv", ["command", "--config=own.py"])
    wrapped = flags.IllegalFlagValueError("x\nTraceback (most recent call last)\n  File ...\nValueError: my own")
    assert commandline._illegal(wrapped) == "--config is 'own.py', which raises ValueError: my own"


def test_a_text_is_refused_by_a_schema_that_depends_on_the_configuration(monkeypatch):
    config = Parsed(ConfigDict({"task": "a"}))
    monkeypatch.setattr(commandline.flags, "FLAGS", {"config": config})
    monkeypatch.setattr(commandline, "CONFIGS", {"config": (lambda config: {"seed": schema.whole(low=0)}, None)})
    said = flags.IllegalFlagValueError("flag --config.seed=x: invalid literal for int() with base 10: 'x'")
    assert commandline._illegal(said) == "config.seed is 'x'; give a whole number at least 0"
    config.value = None
    assert commandline._illegal(said) == str(said)


@pytest.mark.parametrize(
    ("text", "names"),
    [("", []), ("a", ["a"]), ("a, b ,c d", ["a", "b", "c d"]), ("ReGuidance(DPS),x", ["ReGuidance(DPS)", "x"])],
)
def test_names_with_commas_between_them(text, names):
    assert commandline.listed(text) == names


COMMANDS = sorted(path.stem for path in (Path(__file__).parents[2] / "experiments").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "fields_page"])
def test_every_command_starts_in_a_process_of_its_own(command):
    """As a user starts it: most tests of commands fork them from one process, which has imported much already."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    started = [sys.executable, "-m", f"experiments.{command}", "--help"]
    root = Path(__file__).parents[2]
    done = subprocess.run(started, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert "flags:" in done.stdout and not done.stderr, done.stderr[-2000:]
