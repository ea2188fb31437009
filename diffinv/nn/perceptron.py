r"""A dense denoising network for small pictures, and digits above all: one label, one noise level, no convolution."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from diffinv.nn import layers
from diffinv.typing import Array


class Perceptron(nn.Module):
    r"""`(x (H, W, C), condition (), label=None) -> (H, W, C)`: residual dense layers on the flat picture.

        h_0 = W [x, e_label] + b,    h_{k+1} = h_k + V silu(W silu(LayerNorm(h_k) + M e_condition))

    Its weights fit pictures of one size. The embeddings of labels are a table, `label_emb`, as in the U-Net.

    Source: original.

    Attributes:
      width: of the hidden layers.
      blocks: residual ones.
      classes: number of labels, or None.
      embed: width of a label's embedding.
      time_scale: multiplies the condition before the embedding.
    """

    width: int = 256
    blocks: int = 2
    classes: int | None = None
    embed: int = 64
    time_scale: float = 40.0

    @nn.compact
    def __call__(self, x: Array, condition: Array, label: Array | None = None) -> Array:
        """The network's raw output for one example. Raises ValueError where labels and classes do not fit."""
        if (self.classes is None) != (label is None):
            raise ValueError(f"label is {label} for a network of classes={self.classes}; give both or neither")
        level = layers.time_embedding(self.time_scale * jnp.asarray(condition), self.embed).astype(jnp.float32)
        told = [x.reshape(-1).astype(jnp.float32)]
        if self.classes is not None:
            told.append(nn.Embed(self.classes, self.embed, name="label_emb")(label))
        h = nn.Dense(self.width, name="first")(jnp.concatenate(told))
        for i in range(self.blocks):
            moved = nn.LayerNorm(name=f"norm{i}")(h) + nn.Dense(self.width, name=f"level{i}")(nn.silu(level))
            moved = nn.silu(nn.Dense(self.width, name=f"inner{i}")(nn.silu(moved)))
            h = h + nn.Dense(self.width, name=f"outer{i}")(moved)
        out = nn.Dense(x.size, name="last", kernel_init=nn.initializers.zeros)(nn.silu(h))
        return out.reshape(x.shape)
