"""What a training task is: every member that `experiments.train` asks for, and no other; a test compares the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ml_collections import ConfigDict

from diffinv.data import Source
from diffinv.schema import Schema
from diffinv.typing import Array, Key

Batch = Mapping[str, Array]
"""`image` (N, H, W, C) uint8 and `label` (N,) int32, as the data give them."""


@runtime_checkable
class Task(Protocol):
    """A training task: the network, its loss and the picture to show; an entry of `table.TASKS`.

    The functions from `init` to `sample` are pure, and `run.Run` compiles them; the rest is asked once.

    Attributes:
      shape: (H, W, C) of one example.
      contextual: whether `loss` takes a `train.Context` as its last argument.
      refresh: after so many steps the frozen weights are replaced by the trained ones, 0 for never.
      rates: decays of averages that the loss needs, each a number or a function of the step; they come after those
        that the configuration asks for.
    """

    shape: tuple[int, ...]
    contextual: bool
    refresh: int
    rates: Sequence[float | Callable[[Array], Array]]

    def __init__(self, config: ConfigDict, source: Source) -> None:
        """Of a configuration and its training pictures. Raises ValueError where they do not fit."""

    @staticmethod
    def fields(config: ConfigDict) -> Schema:
        """What the configuration holds beside `fields.SHARED`: the task's own fields, and those of its network."""

    @staticmethod
    def check(config: ConfigDict) -> None:
        """Raises ValueError for fields that are right alone and wrong together, before any picture is read."""

    @staticmethod
    def source(config: ConfigDict, split: str, folder: str, watch: Callable[..., Any]) -> Source:
        """The pictures of one split; `folder` is where prepared data are kept, `watch` a bar for their preparation."""

    def init(self, key: Key) -> Any:
        """Drawn weights."""

    def frozen(self, params: Any) -> Any:
        """Weights that are kept beside the trained ones, of the first ones; None for none."""

    def finished(self, key: Key, params: Any) -> Any:
        """The weights as they are sampled and exported: themselves, or with what training leaves undone."""

    def loss(self, key: Key, params: Any, batch: Batch, *context: Any) -> Array:
        """The training loss of a batch, ()."""

    def errors(self, key: Key, params: Any, batch: Batch) -> dict[str, Array]:
        """Held-out errors by name, each (); their mean chooses among the averages."""

    def alarm(self, errors: dict[str, float]) -> str:
        """What the held-out errors say is wrong, in one line that is printed; "" for nothing."""

    def prompts(self, source: Source, count: int) -> Any:
        """What the samples to be shown are asked for: a tree of arrays with `count` rows."""

    def sample(self, key: Key, params: Any, prompt: Any) -> Array:
        """One sample (H, W, C) in [-1, 1], of one row of the prompts."""

    def card(self) -> dict[str, Any]:
        """What rebuilds the network from its weights, and how it was trained; see `diffinv.weights.cards`."""
