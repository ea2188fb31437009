r"""Pictures in one call of a generator, of a text or of nothing, and the game with judges in which it is trained.

A `Game` holds the networks: StackGAN-v2's tree, a judge for each of its pictures, and, where there are texts, the two
encoders of `nn.words`. Its weights are one tree of arrays, so `train.trainer` moves all of them by one loss; what is
kept in the end is a `TextToImage`.

Source: Zhang et al. 2018, arXiv:1710.10916, section 4. Differs: their text encoder was trained before, by others; here
it is trained beside, by a contrastive loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.lax import stop_gradient

from diffinv import adversarial, text
from diffinv.describe import Described, described
from diffinv.nn.stackgan import Generated, Judge, Tree, doublings, with_statistics
from diffinv.nn.words import PictureEncoder, TextEncoder
from diffinv.typing import Array, Key


@described
class Game(NamedTuple):
    """The networks; all static.

    Attributes:
      tree: the generator.
      judges: one for each of its pictures.
      reader: of the text; None without texts.
      viewer: of the picture, beside the reader; None without texts.
      noise: numbers in z.
      length: the most words that are read.
    """

    tree: Tree
    judges: tuple[Judge, ...]
    reader: TextEncoder | None
    viewer: PictureEncoder | None
    noise: int
    length: int

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the pictures, from coarse to fine, in pixels."""
        return tuple(self.tree.size * 2**i for i in range(self.tree.branches))


def game(
    size: int,
    branches: int = 3,
    features: int = 64,
    width: int = 128,
    channels: int = 3,
    blocks: int = 2,
    noise: int = 100,
    judge_features: int = 64,
    alone: bool = True,
    words: int = 0,
    embedding: int = 64,
    length: int = 8,
    viewer_features: int = 16,
) -> Game:
    """The networks for pictures of `size` x `size` pixels, the largest of `branches`; defaults are the source's.

    Args, all static:
      features, width, blocks, channels: of `nn.stackgan.Tree`; noise: numbers in z.
      judge_features: of `nn.stackgan.Judge`; alone: whether judges see the picture alone besides the pair (in the
        source's words joint conditional and unconditional; without texts they always do).
      words: in the vocabulary, 0 for no texts; embedding: the text's numbers; length: the most words that are read.
      viewer_features: of `nn.words.PictureEncoder`.

    Raises ValueError for a size that is no `4 * 2^n` with a smallest picture of 4 x 4 or more, and for features that
    the branches do not halve.
    """
    if features % 2 ** (branches - 1):
        raise ValueError(f"features is {features}; each branch halves it: give a multiple of {2 ** (branches - 1)}")
    if doublings(size) < branches - 1:
        raise ValueError(f"branches is {branches}; pictures of {size} pixels leave at most {doublings(size) + 1}")
    tree = Tree(size // 2 ** (branches - 1), branches, features, width, channels, blocks)
    judges = tuple(Judge(judge_features, tree.size, alone or not words) for _ in range(branches))
    reader = TextEncoder(words, embedding) if words else None
    viewer = PictureEncoder(viewer_features, embedding) if words else None
    return Game(tree, judges, reader, viewer, noise, length)


def drawn(key: Key, game: Game) -> dict[str, Any]:
    """Drawn weights: "generator", its running "statistics", "judges" by the pictures' sides, "reader" and "viewer"."""
    keys = iter(jax.random.split(key, 3 + len(game.judges)))
    zeros = partial(jnp.zeros, dtype=jnp.float32)
    z, shape = zeros(game.noise), lambda side: zeros((side, side, game.tree.channels))
    told: dict[str, Any] = {"judges": {}}
    condition, texts = None, ()
    if game.reader is not None and game.viewer is not None:
        some = jnp.zeros(game.length, jnp.int32).at[0].set(1)
        told["reader"] = game.reader.init(next(keys), some)["params"]
        told["viewer"] = game.viewer.init(next(keys), shape(game.sides[-1]))["params"]
        condition, texts = zeros(game.tree.width), (zeros(game.reader.width),)
    variables = game.tree.init(next(keys), z, *texts)
    told |= {"generator": variables["params"], "statistics": variables["batch_stats"]}
    for judge, side in zip(game.judges, game.sides, strict=True):
        told["judges"][str(side)] = judge.init(next(keys), shape(side), condition)["params"]
    return told


def game_loss(
    game: Game,
    text_weight: float = 1.0,
    colour_weight: float = 0.0,
    wrong_is_real: bool = True,
    slope_weight: float = 0.0,
    contrast_weight: float = 1.0,
    temperature: float = 0.1,
) -> Callable[[Key, Any, Any], Array]:
    """`adversarial.joint_loss` of the game, plus, with texts, `contrast_weight` times `text.contrastive_loss`.

    The text's embedding is a constant to the generator's loss and to the judges', so the encoders are moved by the
    contrastive loss alone. Arguments as there.

    The batch holds "image" (N, H, W, C) in [-1, 1] and, with texts, "tokens" (N, length), "caption" (N,), which of them
    are the same, and "other" (N, H, W, C), pictures of other captions.
    """
    ran: dict[str, Any] = {"train": True, "mutable": ["batch_stats"]}

    def generate(params: Any, *given: Array | None) -> Generated:
        return game.tree.apply({"params": params}, *given, **ran)[0]

    critics = [lambda params, *given, net=net: net.apply({"params": params}, *given, **ran)[0] for net in game.judges]
    weights = (text_weight, colour_weight, wrong_is_real, slope_weight)
    both_sides = adversarial.joint_loss(generate, critics, game.noise, game.tree.width, *weights)

    def loss(key: Key, params: Any, batch: Any) -> Array:
        sides = {"generator": params["generator"], "judges": [params["judges"][str(side)] for side in game.sides]}
        if game.reader is None:
            return both_sides(key, sides, {"image": batch["image"]})
        read, seen = embedded_texts(game, params, batch["tokens"]), viewed(game, params, batch["image"])
        told = {"image": batch["image"], "other": batch["other"], "embedding": stop_gradient(widely(read))}
        contrast = text.contrastive_loss(read, seen, batch["caption"], temperature)
        return both_sides(key, sides, told) + contrast_weight * contrast

    return loss


def embedded_texts(game: Game, params: Any, tokens: Array) -> Array:
    """Tokens (N, length) to vectors (N, embedding) of length 1."""
    reader: Any = game.reader
    return jax.vmap(lambda each: reader.apply({"params": params["reader"]}, each))(tokens)


def widely(read: Array) -> Array:
    """Vectors (..., d) of length 1 at length sqrt(d), so that a number of a text is about as large as one of noise."""
    return jnp.sqrt(jnp.asarray(read.shape[-1], read.dtype)) * read


def viewed(game: Game, params: Any, pictures: Array) -> Array:
    """Pictures (N, H, W, C) of the largest size to vectors (N, embedding) of length 1."""
    viewer: Any = game.viewer
    return jax.vmap(lambda each: viewer.apply({"params": params["viewer"]}, each))(pictures)


def codes(key: Key, game: Game, count: int) -> tuple[Array, Array]:
    """`count` draws of z ~ N(0, I), (N, noise), and of the condition's eps ~ N(0, I), (N, width)."""
    z_key, eps_key = jax.random.split(key)
    return jax.random.normal(z_key, (count, game.noise)), jax.random.normal(eps_key, (count, game.tree.width))


def with_running_statistics(key: Key, game: Game, params: Any, tokens: Array | None, count: int = 128) -> Any:
    """The weights with the running statistics of one batch, as a generator is used; see `nn.stackgan.with_statistics`.

    Args: tokens: (N, length), of which texts the batch is; None without, and then it has `count` examples (static).
    """
    z, eps = codes(key, game, count if tokens is None else len(tokens))
    texts = (None, None) if tokens is None else (widely(embedded_texts(game, params, tokens)), eps)
    variables = with_statistics(game.tree, params["generator"], z, *texts)
    return {**params, "statistics": variables["batch_stats"]}


@struct.dataclass
class TextToImage(Described):
    """A generator with its words: `(key, tokens) -> Generated`, one call of a network.

    Attributes:
      params: as `with_running_statistics` leaves them; the judges' are not needed.
      game: the networks; static.
      words: the vocabulary; static.
      captions: of the pictures that it was trained on, and of those held out; static.
    """

    params: Any
    game: Game = struct.field(pytree_node=False)
    words: tuple[str, ...] = struct.field(pytree_node=False, default=())
    captions: tuple[str, ...] = struct.field(pytree_node=False, default=())

    def tokens(self, prompt: str) -> np.ndarray:
        """The prompt's words as numbers, (length,). Raises ValueError as `text.tokens` does."""
        return text.tokens(prompt, self.words, self.game.length)

    def __call__(self, key: Key, tokens: Array | None = None, truncation: float = 1.0) -> Generated:
        """All pictures of one draw, from coarse to fine.

        Args:
          tokens: (length,); None for a generator that reads no text.
          truncation: multiplies z and eps: below 1 fewer kinds of pictures, and likelier ones.

        Raises ValueError where a text is missing, or is given to a generator that reads none.
        """
        if (tokens is None) != (self.game.reader is None):
            wanted = "reads no text; leave tokens out" if self.game.reader is None else "reads a text; give tokens"
            raise ValueError(f"tokens is {'None' if tokens is None else 'given'}, but this generator {wanted}")
        z, eps = (truncation * draw[0] for draw in codes(key, self.game, 1))
        texts = () if tokens is None else (widely(embedded_texts(self.game, self.params, tokens[None])[0]), eps)
        variables = {"params": self.params["generator"], "batch_stats": self.params["statistics"]}
        tree: Any = self.game.tree
        return tree.apply(variables, z, *texts)
