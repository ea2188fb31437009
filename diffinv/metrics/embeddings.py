r"""Sets of pictures as rows of features of any network that is given, for the distances of `metrics.distribution`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.metrics.features import efficientnet_features
from diffinv.metrics.image import DataRange, in_range, span_of
from diffinv.typing import Array

Embedding = Callable[[Array], Array]

PUBLISHED = {
    "inception_v3": "FID and KID mean pt_inception-2015-12-05-6726825d.pth of github.com/mseitzer/pytorch-fid, which "
    "is the network of github.com/bioinf-jku/TTUR; torchvision's Inception is another one",
    "clip_vit_l14_336": "CMMD means openai/clip-vit-large-patch14-336 of huggingface.co, as in "
    "github.com/google-research/google-research/tree/master/cmmd",
    "dinov2_vit_l14": "FD-DINOv2 means dinov2_vitl14_pretrain.pth of github.com/facebookresearch/dinov2, as in "
    "github.com/layer6ai-labs/dgm-eval",
}
"""Networks that published numbers are of, none of which comes with this project."""


def embedding_rows(
    embedding: Embedding,
    pictures: Array,
    data_range: DataRange,
    wanted: DataRange = (-1.0, 1.0),
    batch: int = 16,
) -> Array:
    """The features (n, d) of pictures (n, H, W, C), a row each, flattened: what `feature_fid` and the others take.

    Call it inside of `jit`. Original.

    Args:
      embedding: `x -> features` of one picture (H, W, C) in `wanted`; it resizes as its network wants.
      pictures: in `data_range`, (low, high); static, as `wanted` and `batch` are.
      wanted: the range in which the embedding takes a picture, (-1, 1) for `features.efficientnet_features`.
      batch: pictures at once.

    Raises ValueError for a range that is none, or no pictures.
    """
    (low, span), (floor, height) = span_of(data_range), span_of(wanted)
    if np.ndim(pictures) != 4 or not len(pictures) or batch < 1:
        raise ValueError(f"pictures is {np.shape(pictures)}, batch {batch}; give pictures (n, H, W, C), and 1 at least")
    in_range(data_range, pictures=pictures)
    single = jnp.float64 if pictures.dtype == jnp.float64 else jnp.float32
    one = lambda x: embedding((x.astype(single) - low) * (height / span) + floor).ravel()
    return jax.lax.map(one, jnp.asarray(pictures), batch_size=batch)


def known_network(name: str) -> Embedding:
    """The embedding of this name; "efficientnet_lite0" alone comes with the project. Original.

    Raises ValueError for the networks of published numbers, and says where their authors keep the weights: convert them
    (`weights.convert.onnx` reads ONNX), and give the function to `embedding_rows`. A number of another network has no
    right to the names FID, KID and CMMD.
    """
    if name == "efficientnet_lite0":
        return efficientnet_features().pooled
    if name in PUBLISHED:
        raise ValueError(
            f"{name} does not come with this project: {PUBLISHED[name]}; give its function to embedding_rows()"
        )
    raise ValueError(
        f"name is {name!r}; efficientnet_lite0 is known, and of others ({', '.join(PUBLISHED)}) their homes"
    )
