r"""Sets of pictures as rows of features of any network that is given, for the distances of `metrics.distribution`.

Papers' FID, KID, CMMD and FD-DINOv2 are of networks that do not come with this project; `known_network(name, path)`
makes one of its ONNX file, with the size, the interpolation and the values that its authors give it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import Described, described
from diffinv.metrics.features import efficientnet_features
from diffinv.metrics.image import DataRange, in_range, span_of
from diffinv.typing import Array
from diffinv.weights.convert import onnx

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


@described
class Preparation(NamedTuple):
    """How a network takes a picture of values in [0, 1], as `(value - mean) / deviation`, and gives its row.

    Attributes:
      size: pixels of a side, where its file takes any.
      method: of `jax.image.resize`: "bilinear" or "bicubic" (a = -1/2).
      antialias: whether a picture is smoothed as it is shrunk.
      mean: of each channel.
      deviation: of each channel.
      width: how many features it gives.
      output: its name in the file; "" for the one of this width.
      channels: "first" or "last" in the file; "" for what the file says, first where it does not.
    """

    size: int
    method: str
    antialias: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    width: int
    output: str = ""
    channels: str = ""


_HALF = (0.5, 0.5, 0.5)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPARATIONS = {
    "inception_v3": Preparation(299, "bilinear", False, _HALF, _HALF, 2048),
    "clip_vit_l14_336": Preparation(336, "bicubic", True, *_CLIP, 768),
    "dinov2_vit_l14": Preparation(224, "bicubic", True, *_IMAGENET, 1024),
}
"""As in the code of `PUBLISHED`: pytorch-fid's `InceptionV3.forward`, to [-1, 1] and without antialiasing; the
`_clip_preprocess` of cmmd/embedding.py; dgm-eval's DINOv2, whose bicubic is Pillow's: this one, rounded to 8 bits."""


@struct.dataclass
class OnnxEmbedding(Described):
    """`x -> row` of an ONNX network: (H, W, C) in [-1, 1], of any H and W, C 1 or 3, to its features (width,).

    A grey picture has three equal channels; one that is not as the network wants it is stretched. It is a pytree whose
    leaves are the network's parameters: pass it through `jit` as an argument. Source: original.

    Attributes:
      params: of the network.
      apply: the network; static.
      preparation: how it takes a picture; static.
      sides: height and width of its input; static.
      last: whether its channels are last; static.
      place: which of its outputs the row is; static.
    """

    params: Any
    apply: onnx.Network = struct.field(pytree_node=False)
    preparation: Preparation = struct.field(pytree_node=False)
    sides: tuple[int, int] = struct.field(pytree_node=False)
    last: bool = struct.field(pytree_node=False)
    place: int = struct.field(pytree_node=False)

    def taken(self, x: Array) -> Array:
        """The network's input of one picture, (1, 3, H, W), or channels last."""
        how, grey = self.preparation, (*x.shape[:2], 3)
        x = (jnp.broadcast_to(x, grey).astype("float32") + 1) / 2
        x = jax.image.resize(x, (*self.sides, 3), how.method, antialias=how.antialias)
        mean, deviation = (jnp.broadcast_to(jnp.asarray(each, x.dtype), 3) for each in (how.mean, how.deviation))
        x = (x - mean[None, None]) / deviation[None, None]
        return (x if self.last else x.transpose(2, 0, 1))[None]

    def __call__(self, x: Array) -> Array:
        found = self.apply(self.params, self.taken(x))
        return (found if isinstance(found, tuple) else (found,))[self.place].ravel()


def _entry(path: str | Path, network: onnx.Network, how: Preparation) -> tuple[tuple[int, int], bool]:
    """(sides, whether channels are last) of a network that takes one picture."""
    shapes = [port.shape or (None,) * 4 for port in network.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] not in (None, 1):
        told = ", ".join(f"{port.name} {port.shape}" for port in network.inputs)
        raise ValueError(f"{path} takes {told}; export it for one picture at once, (1, 3, height, width)")
    shape = shapes[0]
    last = how.channels == "last" or not how.channels and shape[3] == 3 and shape[1] not in (None, 3)
    channels, sides = (shape[3], shape[1:3]) if last else (shape[1], shape[2:])
    if channels not in (None, 3):
        raise ValueError(f"{path} takes {network.inputs[0].name} {shape}; export it for pictures of 3 channels")
    height, width = (how.size if side is None else side for side in sides)
    return (height, width), last


def _exit(path: str | Path, names: tuple[str, ...], shapes: list[tuple[int, ...]], how: Preparation) -> int:
    """The place of the output that is a row of features."""
    told = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    fits = [i for i, shape in enumerate(shapes) if int(np.prod(shape)) == how.width]
    fits = [i for i in fits if how.output in ("", names[i])]
    if len(fits) == 1:
        return fits[0]
    wanted = f"{how.width} features of a picture" + (f" as {how.output!r}" if how.output else "")
    raise ValueError(f"{path} gives {told}; wanted is one output of {wanted}: give that network, or name its output")


def onnx_embedding(path: str | Path, preparation: Preparation) -> OnnxEmbedding:
    r"""An ONNX network as an embedding of pictures (H, W, C) in [-1, 1]: `preparation.width` features.

    The size is that of the file's input where it is fixed, else the preparation's; a batch of the file is 1 or free.

    Source: original; `weights.convert.onnx` reads the file.

    Raises ValueError, with what was found, for a network that takes anything else, or gives no or several rows of this
    width; as `onnx.network` for a file that is none.
    """
    network, params = onnx.network(path)
    sides, last = _entry(path, network, preparation)
    empty = OnnxEmbedding(params, network, preparation, sides, last, 0)
    entering = jax.eval_shape(empty.taken, jax.ShapeDtypeStruct((8, 8, 3), "float32"))
    found = jax.eval_shape(network, params, entering)
    shapes = [each.shape for each in (found if isinstance(found, tuple) else (found,))]
    return dataclasses.replace(empty, place=_exit(path, network.outputs, shapes, preparation))


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


def known_network(name: str, path: str | Path = "", **changes: Any) -> Embedding:
    """The embedding of this name, of pictures (H, W, C) in [-1, 1]; "efficientnet_lite0" alone comes with the project.

    A number of another network has no right to the names FID, KID and CMMD.

    Source: original.

    Args:
      name: "efficientnet_lite0", or one of `PUBLISHED`.
      path: of the latter the ONNX file.
      changes: of its `PREPARATIONS`, where the file wants its pictures otherwise; static.

    Raises ValueError for a network of published numbers without a file, and FileNotFoundError for one whose file is not
    there, which say where its authors keep it; as `onnx_embedding` for a file of another network.
    """
    if name == "efficientnet_lite0":
        return efficientnet_features().pooled
    if name not in PUBLISHED:
        raise ValueError(
            f"name is {name!r}; efficientnet_lite0 is known, and of others ({', '.join(PUBLISHED)}) their homes"
        )
    if not path:
        raise ValueError(
            f"{name} does not come with this project: {PUBLISHED[name]}; give its ONNX file, or its function to "
            "embedding_rows()"
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give {name} as ONNX (docs/evaluating.md): {PUBLISHED[name]}")
    return onnx_embedding(path, PREPARATIONS[name]._replace(**changes))
