"""The training tasks: each is what the protocol says, and the protocol is what the command asks for."""

import ast
import functools
import inspect
import re
import tempfile
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from diffinv import schema, weights
from diffinv.data.builders import Resident, Source
from experiments.tasks import fields, networks
from experiments.tasks.protocol import Task
from experiments.tasks.table import TASKS, task

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "experiments" / "tasks"
CONFIGS = {"denoising": "prior32", "spectral": "blurring32", "consistency": "ict32", "super_resolution": "ctmsr_x4",
           "adversarial": "stackgan_v2_digits", "autoencoder": "autoencoder", "latent": "latent_prior"}  # fmt: skip
GIVEN = {"adversarial": {"size", "channels", "words"},
         "autoencoder": {"out_channels", "quant", "post_quant", "eps", "plain_conv"}}  # fmt: skip
OWN = {"adversarial": set(weights.cards.GAME), "autoencoder": set(weights.cards.AUTOENCODER)}
"""Of tasks whose networks are none of the cards' architectures: the fields of `config.net`, but for those `GIVEN`."""
every_task = pytest.mark.parametrize("name", TASKS)


@functools.cache
def coder():
    """An autoencoder of 2 x 2 pixels a code, of no use."""
    card = {"name": "tiny", "shape": [8, 8, 3], "autoencoder": {"channels": 4, "multipliers": [1], "patch": 2,
            "attention": False, "groups": 1, "blocks": 1}}  # fmt: skip
    flat = {name: np.full(shape, 0.1, np.float32) for name, shape in weights.cards.expected_shapes(card).items()}
    path = f"{tempfile.mkdtemp()}/tiny"
    weights.save(path, weights.unflatten(flat), card)
    return path


def configured(name):
    config = import_module(f"configs.{CONFIGS[name]}").get_config("smoke")
    config.data = "gradients"
    if name == "latent":
        config.autoencoder = coder()
    return config


def members():
    """What the protocol declares."""
    functions = {name for name, value in vars(Task).items() if inspect.isroutine(value) and not name.startswith("_")}
    return set(Task.__annotations__) | functions


def asked():
    """What the command, and the check of its configuration, take from a task."""
    text = "".join(
        path.read_text() for path in (ROOM / "run.py", ROOM / "fields.py", ROOT / "experiments" / "train.py")
    )
    chains = [ast.unparse(node) for node in ast.walk(ast.parse(text.replace("from __future__", "from past")))
              if isinstance(node, ast.Attribute)]  # fmt: skip
    task = r"(?:(?:self|run|self\.run|loop\.run)\.task|task\(config\)|TASKS\[config\.task\])"
    return {found[1] for chain in chains if (found := re.fullmatch(rf"{task}\.(\w+)", chain))}


def test_the_protocol_has_what_is_asked_for_and_nothing_else():
    assert asked() == members() and len(members()) == 16


def test_every_member_is_documented():
    told = inspect.getdoc(Task)
    assert all(f"{name}:" in told for name in Task.__annotations__)
    functions = members() - set(Task.__annotations__)
    assert all(getattr(Task, name).__doc__ for name in [*functions, "__init__"])


@every_task
def test_every_task_is_one(name):
    """With each member, and the protocol's arguments in their order."""
    config = configured(name)
    assert task(config) is TASKS[name]
    pictures = np.random.default_rng(0).integers(0, 256, (8, config.size, config.size, config.channels), np.uint8)
    source = Source(Resident(pictures, np.zeros(8, np.int32)), config.size, config.channels, ("0", "1"))
    found = TASKS[name](config, source)
    shape = (4, 4, 4) if name == "latent" else (config.size, config.size, config.channels)
    assert isinstance(found, Task) and found.shape == shape
    for member in (members() | {"__init__"}) - set(Task.__annotations__):
        declared, own = (list(inspect.signature(getattr(kind, member)).parameters) for kind in (Task, TASKS[name]))
        most = len(own) if member == "loss" else len(declared)  # without a context there is no last argument
        assert own[:4] == declared[: len(own)][:4] and len(own) == min(most, len(own)), member
        assert isinstance(inspect.getattr_static(TASKS[name], member), staticmethod) == isinstance(
            inspect.getattr_static(Task, member), staticmethod
        )


@every_task
def test_the_help_of_a_task_tells_its_own_fields_and_its_networks(name):
    config = configured(name)
    own = TASKS[name].fields(config)
    assert not set(own) & set(fields.SHARED)
    told = schema.explain(fields.fields(config), config)
    assert all(f"--{path}=" in told for path, _ in schema.flat_fields(own))
    if name in OWN:
        assert set(own["net"]) == OWN[name] - GIVEN[name]
        return
    known = own["architecture"].known
    assert set(known) == {
        each for each, net in networks.NETWORKS.items() if net.enlarges == (name == "super_resolution")
    }


def test_every_network_of_the_cards_can_be_trained():
    """Its fields are those of the cards; the others are the task's or keep their defaults."""
    assert set(networks.NETWORKS) == set(weights.cards.ARCHITECTURES) == set(networks.DECLARED)
    for name, network in networks.NETWORKS.items():
        assert set(network.fields) <= set(networks.DECLARED[name])
        assert not {"out_channels", "classes", "plain_conv"} & set(network.fields)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in OWN])
def test_the_network_is_that_of_the_configuration(name):
    """Built of the card's own words, but for the convolution that trains faster."""
    config = configured(name)
    card = networks.card(config)
    net = networks.build(card)
    assert type(net) is weights.cards.ARCHITECTURES[networks.architecture(config)] and net.plain_conv
    assert net.clone(plain_conv=False) == weights.cards.build_network(card)
    assert {field: getattr(net, field) for field in ("channels", "blocks")} == {
        field: config.net[field] for field in ("channels", "blocks")
    }


def test_prompts_are_what_samples_are_drawn_by():
    """A row of the prompts is what `sample` takes, in every task."""
    for name in ("denoising", "super_resolution", "adversarial", "autoencoder", "latent"):
        config = configured(name)
        pictures = np.zeros((4, config.size, config.size, config.channels), np.uint8)
        source = Source(Resident(pictures, np.zeros(4, np.int32)), config.size, config.channels, ("0", "1"))
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            found, picture = TASKS[name](config, source), (config.size, config.size, config.channels)
            rows = found.prompts(source, 5)
            assert all(len(leaf) == 5 for leaf in jax.tree.leaves(rows))
            params = jax.eval_shape(found.init, jax.random.key(0))
            one = jax.tree.map(lambda leaf: leaf[0], rows)
            assert jax.eval_shape(found.sample, jax.random.key(0), params, one).shape == picture
