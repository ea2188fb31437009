r"""The networks of StackGAN: a text's embedding and noise to pictures of rising size, and their judges.

One example each, (H, W, C) in [-1, 1]. Batch normalisation is of the whole batch: in training (`train=True`) `apply`
stands under `jax.vmap(..., axis_name="batch")` and gives the statistics back; otherwise it takes the running ones.

Source: Zhang et al. 2018, arXiv:1710.10916 (v1 and v2), and the authors' code, StackGAN-v2 6228e34 and StackGAN-Pytorch
e72ef88, whose numbers of weights these have. Differs: judges give logits, not probabilities; the smallest scale may be
of any size 4 * 2^n, where theirs is 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffinv.describe import described
from diffinv.typing import Array

SEED = 4
"""Side of the first feature map."""
AXIS = "batch"
"""The name of the mapped axis over which batch normalisation averages."""
MOMENTUM = 0.9
"""What is kept of the running statistics; the source's is 0.1 of the new."""
ABOUT_ONE = lambda key, shape, dtype=jnp.float32: 1 + 0.02 * jax.random.normal(key, shape, dtype)
V1 = nn.initializers.normal(0.02)
V2 = nn.initializers.orthogonal()


def glu(x: Array) -> Array:
    """Gated linear unit over channels, (..., 2 n) to (..., n): `a sigmoid(b)`. Source: Dauphin et al. 2017."""
    a, b = jnp.split(x, 2, -1)
    return a * nn.sigmoid(b)


def leaky(x: Array) -> Array:
    """`max(x, 0.2 x)`."""
    return nn.leaky_relu(x, 0.2)


def doublings(size: int) -> int:
    """n of `size = 4 * 2^n`. Raises ValueError where there is none."""
    n = max(size // SEED, 1).bit_length() - 1
    if size != SEED * 2**n:
        raise ValueError(f"size is {size}; give 4, 8, 16, 32, ... pixels: each stage doubles the one before")
    return n


def enlarged(x: Array) -> Array:
    """Twice the side, each pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, 0), 2, 1)


@described
class Text(NamedTuple):
    """The law from which a condition is drawn: `N(mean, exp(log_variance))`.

    Attributes:
      mean: (width,).
      log_variance: (width,).
    """

    mean: Array
    log_variance: Array

    def at(self, eps: Array) -> Array:
        """`mean + exp(log_variance / 2) eps`."""
        return self.mean + jnp.exp(self.log_variance / 2) * eps


@described
class Generated(NamedTuple):
    """What a generator makes.

    Attributes:
      pictures: of rising size, each (H, W, 3) in [-1, 1].
      text: the law of the condition; None without one.
    """

    pictures: tuple[Array, ...]
    text: Text | None


class Block(nn.Module):
    """A convolution without offset, batch normalisation, a nonlinearity.

    Attributes:
      features: channels of the convolution; `glu` halves them; static.
      kernel: 3 keeps the side, 4 halves it; static.
      after: the nonlinearity, or None; static.
      norm: with the normalisation; static.
      start: initialiser of the kernel; static.
    """

    features: int
    kernel: int = 3
    after: Callable[[Array], Array] | None = glu
    norm: bool = True
    start: Callable = V2

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        strides = 1 if self.kernel == 3 else 2
        sides = ((1, 1), (1, 1))
        x = nn.Conv(self.features, (self.kernel,) * 2, strides, sides, use_bias=False, kernel_init=self.start)(x)
        x = Norm()(x, train) if self.norm else x
        return self.after(x) if self.after else x


class Norm(nn.Module):
    """Batch normalisation over the axis `AXIS`, with the source's settings."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        axis = AXIS if train else None
        return nn.BatchNorm(not train, momentum=MOMENTUM, epsilon=1e-5, scale_init=ABOUT_ONE, axis_name=axis)(x)


class Augmentation(nn.Module):
    """Conditioning augmentation: a text's embedding (d,) to the law of the condition.

    Attributes:
      width: of the condition; static.
      gated: by `glu` as in v2; otherwise by ReLU as in v1, whose deviations are 1 at least; static.
    """

    width: int = 128
    gated: bool = True

    @nn.compact
    def __call__(self, embedding: Array) -> Text:
        h = nn.Dense(2 * self.width * (2 if self.gated else 1), kernel_init=V2 if self.gated else V1)(embedding)
        return Text(*jnp.split(glu(h) if self.gated else nn.relu(h), 2))


class Root(nn.Module):
    """F_0: the code (d,) to (size, size, features), by a 4 x 4 map and doublings.

    Attributes:
      size: 4 * 2^n; static.
      features: channels of the result, twice as many before each doubling; static.
      after: `glu`, or ReLU; static.
      start: initialiser of the kernels; static.
    """

    size: int
    features: int
    after: Callable[[Array], Array] = glu
    start: Callable = V2

    @nn.compact
    def __call__(self, code: Array, train: bool) -> Array:
        gate, n = (2 if self.after is glu else 1), doublings(self.size)
        width = self.features * 2**n
        h = nn.Dense(gate * width * SEED**2, use_bias=False, kernel_init=self.start)(code)
        h = self.after(Norm()(h, train)).reshape(SEED, SEED, width)
        for level in range(n):
            h = Block(gate * width // 2 ** (level + 1), 3, self.after, start=self.start)(enlarged(h), train)
        return h


class Residual(nn.Module):
    """`x + norm(conv(after(norm(conv(x)))))`.

    Attributes:
      after: the nonlinearity within; static.
      last: the nonlinearity of the sum, or None; static.
      start: initialiser of the kernels; static.
    """

    after: Callable[[Array], Array] = glu
    last: Callable[[Array], Array] | None = None
    start: Callable = V2

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        features = x.shape[-1]
        h = Block(features * (2 if self.after is glu else 1), 3, self.after, start=self.start)(x, train)
        x = x + Block(features, 3, None, start=self.start)(h, train)
        return self.last(x) if self.last else x


class Branch(nn.Module):
    """F_i: features (h, w, n) and the condition to (2 h, 2 w, n / 2).

    Attributes:
      blocks: residual ones; static.
    """

    blocks: int = 2

    @nn.compact
    def __call__(self, h: Array, condition: Array, train: bool) -> Array:
        features = h.shape[-1]
        h = Block(2 * features)(beside(h, condition), train)
        for _ in range(self.blocks):
            h = Residual()(h, train)
        return Block(features)(enlarged(h), train)


class Head(nn.Module):
    """Features to a picture in [-1, 1]: a 3 x 3 convolution and tanh.

    Attributes:
      channels: of the picture; static.
      start: initialiser of the kernel; static.
    """

    channels: int = 3
    start: Callable = V2

    @nn.compact
    def __call__(self, h: Array) -> Array:
        return jnp.tanh(nn.Conv(self.channels, (3, 3), use_bias=False, kernel_init=self.start)(h))


def beside(h: Array, condition: Array) -> Array:
    """Features with the condition at every pixel, the condition first as in the source."""
    return jnp.concatenate([jnp.broadcast_to(condition, (*h.shape[:2], *condition.shape)), h], -1)


class Tree(nn.Module):
    """StackGAN-v2's generator: `(z, embedding, eps) -> Generated`.

    Without an embedding the noise z takes the condition's place everywhere; without eps the condition is the mean.

    Attributes:
      size: side of the smallest picture, 4 * 2^n; static.
      branches: pictures, each twice as large as the one before; static.
      features: channels at the smallest picture's size, halved with each branch; static.
      width: of the condition; static.
      channels: of the pictures; static.
      blocks: residual blocks a branch; static.
    """

    size: int = 64
    branches: int = 3
    features: int = 64
    width: int = 128
    channels: int = 3
    blocks: int = 2

    @nn.compact
    def __call__(self, z: Array, embedding: Array | None = None, eps: Array | None = None, train: bool = False):
        text = None if embedding is None else Augmentation(self.width)(embedding)
        condition = z if text is None else text.at(jnp.zeros(self.width, text.mean.dtype) if eps is None else eps)
        h = Root(self.size, self.features)(z if text is None else jnp.concatenate([condition, z]), train)
        pictures = [Head(self.channels)(h)]
        for _ in range(self.branches - 1):
            h = Branch(self.blocks)(h, condition, train)
            pictures.append(Head(self.channels)(h))
        return Generated(tuple(pictures), text)


class First(nn.Module):
    """StackGAN-v1's Stage-I generator, `(z, embedding, eps) -> Generated` of one picture.

    Attributes:
      size: its side, 4 * 2^n; static.
      features: the source's GF_DIM, an eighth of the channels at 4 x 4; static.
      width: of the condition; static.
    """

    size: int = 64
    features: int = 192
    width: int = 128

    @nn.compact
    def __call__(self, z: Array, embedding: Array, eps: Array | None = None, train: bool = False) -> Generated:
        text = Augmentation(self.width, False)(embedding)
        condition = text.at(jnp.zeros(self.width, text.mean.dtype) if eps is None else eps)
        last = 8 * self.features // 2 ** doublings(self.size)
        h = Root(self.size, last, nn.relu, V1)(jnp.concatenate([z, condition]), train)
        return Generated((Head(start=V1)(h),), text)


class Second(nn.Module):
    """StackGAN-v1's Stage-II generator, `(picture, embedding, eps) -> Generated`: four times the side, and no noise z.

    Attributes:
      features: the source's GF_DIM; static.
      width: of the condition; static.
      blocks: residual ones, the source's R_NUM; static.
    """

    features: int = 192
    width: int = 128
    blocks: int = 2

    @nn.compact
    def __call__(self, picture: Array, embedding: Array, eps: Array | None = None, train: bool = False) -> Generated:
        text = Augmentation(self.width, False)(embedding)
        condition = text.at(jnp.zeros(self.width, text.mean.dtype) if eps is None else eps)
        block = lambda n, kernel=3, norm=True: Block(n, kernel, nn.relu, norm, V1)
        h = block(self.features, norm=False)(picture, train)
        h = block(4 * self.features, 4)(block(2 * self.features, 4)(h, train), train)
        h = block(4 * self.features)(beside(h, condition), train)
        for _ in range(self.blocks):
            h = Residual(nn.relu, nn.relu, V1)(h, train)
        for level in range(4):
            h = block(4 * self.features // 2 ** (level + 1))(enlarged(h), train)
        return Generated((Head(start=V1)(h),), text)


@described
class Logits(NamedTuple):
    """A judge's logits, shape (): of the picture with its condition, and of the picture alone; None where it has none.

    Attributes:
      conditional: of the pair.
      unconditional: of the picture.
    """

    conditional: Array | None
    unconditional: Array | None


class Judge(nn.Module):
    """A discriminator, `(picture, condition) -> Logits`: down to 4 x 4, then two heads.

    Attributes:
      features: channels after the first halving, doubled with each down to the 4 x 4 of `base`, and further where the
        picture is larger; 3 x 3 convolutions then bring them back; static.
      base: side of the tree's smallest picture; where it is 4 a 3 x 3 convolution stands for the halvings; static.
      alone: with the head of the picture alone; StackGAN-v1's first judge has none; static.
      start: initialiser of the kernels; static.
    """

    features: int = 64
    base: int = 64
    alone: bool = True
    start: Callable = V2

    @nn.compact
    def __call__(self, picture: Array, condition: Array | None = None, train: bool = False) -> Logits:
        block = lambda n, kernel, norm=True: Block(n, kernel, leaky, norm, self.start)
        own = doublings(self.base)
        extra = doublings(picture.shape[0]) - own
        width = self.features * 2 ** max(own - 1, 0)
        h = picture if own else block(width, 3, False)(picture, train)
        for level in range(own):
            h = block(self.features * 2**level, 4, level > 0)(h, train)
        for level in range(extra):
            h = block(width * 2 ** (level + 1), 4)(h, train)
        for level in reversed(range(extra)):
            h = block(width * 2**level, 3)(h, train)
        head = lambda h: nn.Conv(1, (SEED, SEED), padding="VALID", kernel_init=self.start)(h)[0, 0, 0]
        pair = None if condition is None else head(block(width, 3)(beside(h, condition), train))
        return Logits(pair, head(h) if self.alone else None)


def with_statistics(net: nn.Module, params: Any, *batch: Array | None) -> Any:
    """Variables whose running statistics are those of one batch: what a net with averaged weights is sampled with.

    Training needs no running statistics, and an average of weights has none of its own. Source: as `update_bn` of
    stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407, section 3.2.

    Args:
      net: of one example, called as `net.apply(variables, *example, train=True)`.
      params: its weights.
      batch: the examples' arguments, (N, ...) each, or None.
    """
    axes = tuple(None if each is None else 0 for each in batch)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *(each if each is None else each[0] for each in batch))
    none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.get("batch_stats", {}))
    run = lambda *example: net.apply(
        {"params": params, "batch_stats": none}, *example, train=True, mutable=["batch_stats"]
    )
    _, told = jax.vmap(run, axes, axis_name=AXIS)(*batch)
    statistics = jax.tree.map(lambda leaf: leaf[0] / (1 - MOMENTUM), told.get("batch_stats", {}))
    return {"params": params, "batch_stats": statistics}
