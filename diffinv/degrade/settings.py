r"""The published numbers of the Real-ESRGAN degradations: which stages, how likely, how strong.

Everything is static and hashable: a `Settings` passes through `jit` as it is, and another one is another program. Sides
and deviations are in pixels, angles in radians, noise in levels of 255; the rest is dimensionless.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flax import struct

from diffinv.describe import Described

static = partial(struct.field, pytree_node=False)
FAMILIES = ("iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso")
Range = tuple[float, float]


@struct.dataclass
class BlurSettings(Described):
    """How a blur kernel is drawn.

    Attributes:
      sides: the smallest and the largest side, both odd; uniform among the odd ones.
      deviation: of a Gaussian, along either axis, in pixels.
      generalised: the exponent beta of a generalised Gaussian; with probability 1/2 uniform under 1, else above.
      plateau: the exponent beta of a plateau; with probability 1/2 uniform under 1, else above.
      families: probabilities of `FAMILIES`.
      sinc: probability of a sinc filter in their place.
      probability: of any blur at all.
    """

    sides: tuple[int, int] = static()
    deviation: Range = static()
    generalised: Range = static(default=(0.5, 4.0))
    plateau: Range = static(default=(1.0, 2.0))
    families: tuple[float, ...] = static(default=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03))
    sinc: float = static(default=0.1)
    probability: float = static(default=1.0)


@struct.dataclass
class ResizeSettings(Described):
    """How a resizing is drawn.

    Attributes:
      scale: the range; uniform in `[scale[0], 1]` down and `[1, scale[1]]` up.
      up: probability of enlarging.
      down: probability of shrinking.
      keep: probability of neither.
    """

    scale: Range = static()
    up: float = static()
    down: float = static()
    keep: float = static()


@struct.dataclass
class NoiseSettings(Described):
    """How noise is drawn.

    Attributes:
      sigma: of Gaussian noise, in levels of 255.
      poisson: the factor of Poisson noise.
      gaussian: probability of Gaussian noise, else Poisson.
      grey: probability that all channels have the same noise.
    """

    sigma: Range = static()
    poisson: Range = static()
    gaussian: float = static(default=0.5)
    grey: float = static(default=0.4)


@struct.dataclass
class Stage(Described):
    """Blur, resizing, noise and JPEG.

    Attributes:
      blur: how its kernel is drawn.
      resize: how its resizing is drawn.
      noise: how its noise is drawn.
      quality: of JPEG; that of the second stage is the final JPEG's.
    """

    blur: BlurSettings = static()
    resize: ResizeSettings = static()
    noise: NoiseSettings = static()
    quality: Range = static()


@struct.dataclass
class Settings(Described):
    """The two stages and the end.

    Attributes:
      first: the first stage.
      second: the second stage.
      second_order: probability of the second stage.
      sinc: probability of the final sinc filter.
      sinc_sides: its smallest and largest side, odd.
      resize_first: probability that the resizing to the final size and the sinc filter come before the last JPEG.
    """

    first: Stage = static()
    second: Stage = static()
    second_order: float = static(default=1.0)
    sinc: float = static(default=0.8)
    sinc_sides: tuple[int, int] = static(default=(7, 21))
    resize_first: float = static(default=0.5)


_FIRST = Stage(
    BlurSettings((3, 19), (0.2, 3.0)),
    ResizeSettings((0.15, 1.5), up=0.2, down=0.7, keep=0.1),
    NoiseSettings((1.0, 30.0), (0.05, 3.0)),
    (30.0, 95.0),
)
_SECOND = Stage(
    BlurSettings((3, 13), (0.2, 1.5), probability=0.8),
    ResizeSettings((0.3, 1.2), up=0.3, down=0.4, keep=0.3),
    NoiseSettings((1.0, 25.0), (0.05, 2.5)),
    (30.0, 95.0),
)
_MILD = (0.6, 0.4, 0.0, 0.0, 0.0, 0.0)

resshift_train = Settings(_FIRST, _SECOND, second_order=0.5, sinc_sides=(3, 13))
"""ResShift's training (Yue et al. 2023, arXiv:2307.12348; SinSR and CTMSR have the same): the second stage half the
time, kernels of 3 to 19 and 3 to 13 pixels; the final sinc filter has the sides of the second stage."""

resshift_test = Settings(
    Stage(
        BlurSettings((3, 11), (0.2, 0.8), (1.0, 1.5), (1.0, 1.2), _MILD),
        ResizeSettings((0.5, 1.5), up=0.2, down=0.7, keep=0.1),
        NoiseSettings((1.0, 15.0), (0.05, 0.3)),
        (70.0, 95.0),
    ),
    Stage(
        BlurSettings((3, 5), (0.2, 0.5), (0.5, 0.8), (1.0, 1.2), _MILD, sinc=0.0, probability=0.2),
        ResizeSettings((0.8, 1.2), up=0.3, down=0.4, keep=0.3),
        NoiseSettings((1.0, 10.0), (0.05, 0.2)),
        (80.0, 100.0),
    ),
    second_order=0.0,
    sinc=0.2,
    sinc_sides=(3, 5),
)
"""ResShift's ImageNet-Test, milder; of the second stage only the quality is in use. Its `blur_kernel_size` 13 and 7 are
ends of Python ranges: the largest kernels have 11 and 5 pixels."""

stock = Settings(
    replace(_FIRST, blur=replace(_FIRST.blur, sides=(7, 21))),
    replace(_SECOND, blur=replace(_SECOND.blur, sides=(7, 21))),
)
"""Stock Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833, x4plus), without its sharpening of the target."""
