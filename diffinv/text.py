r"""Words to numbers, and a text brought near its picture: what a text-conditional generator reads.

A caption becomes the whole numbers of its words, 0 for none; networks (`nn.words`) make a unit vector of them and one
of a picture, which a contrastive loss brings together.

Source: Radford et al. 2021, arXiv:2103.00020, figure 3 (the contrastive loss). Differs: a caption that stands more than
once in a batch is right at each of its places, as in Khosla et al. 2020, arXiv:2004.11362.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.typing import Array

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d")
"""Runs of letters, a capital beginning a new one ("AnnualCrop"), and single digits."""


def words(caption: str) -> list[str]:
    """Its words in order, in small letters: "AnnualCrop 12" gives annual, crop, 1, 2."""
    return [word.lower() for word in WORD.findall(caption)]


def vocabulary(captions: Sequence[str], least: int = 1) -> tuple[str, ...]:
    """The words that stand at least `least` times in the captions, in alphabetical order."""
    count = Counter(word for caption in captions for word in words(caption))
    return tuple(sorted(word for word, times in count.items() if times >= least))


def tokens(caption: str, known: Sequence[str], length: int, strict: bool = True) -> np.ndarray:
    """The caption's first `length` words as int32 (length,): 1 and on by their places in `known`, then 0 for none.

    Words that are not known are left out where the caption is not taken `strict`ly.
    Raises ValueError for a caption without a word, and, `strict`, for a word that is not known; it names the nearest.
    """
    found = words(caption)
    place = {word: number for number, word in enumerate(known, 1)}
    if not found:
        raise ValueError(f"the prompt is {caption!r}, which has no word; give words such as {_some(known)}")
    for word in found if strict else ():
        if word not in place:
            near = get_close_matches(word, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {len(known)}, such as {_some(known)}"
            raise ValueError(f"the prompt has the word {word!r}, which the model has not read; {hint}")
    ids = [place[word] for word in found if word in place][:length]
    return np.asarray(ids + [0] * (length - len(ids)), np.int32)


def _some(known: Sequence[str]) -> str:
    return ", ".join(list(known)[:: max(len(known) // 5, 1)][:5])


def contrastive_loss(text: Array, picture: Array, caption: Array, temperature: float = 0.1) -> Array:
    r"""How ill the texts and pictures of a batch find each other, in nats, ():

        -1/2 mean_i [log p(T_i | picture_i) + log p(P_i | text_i)],   p(j | i) = softmax_j(<text_j, picture_i> / tau)

    where T_i and P_i are all places of the batch that have the caption of i.

    Source: see the module's head. Differs: the log of the sum over the right places, so that 0 can be reached.

    Args:
      text, picture: (N, d) each, of length 1.
      caption: (N,), which places have the same caption.
      temperature: tau, dimensionless.
    """
    logits = text @ picture.T / temperature
    same = caption[:, None] == caption[None]
    right = lambda logits: jax.nn.logsumexp(jnp.where(same, logits, -jnp.inf), 1) - jax.nn.logsumexp(logits, 1)
    return -jnp.mean(right(logits) + right(logits.T)) / 2


def text_match(picture: Array, texts: Array, caption: Array, first: int = 1) -> Array:
    """Share of the pictures whose own caption is among the `first` (static) nearest of all texts, ().

    By chance it is `first / M`.

    Args:
      picture: (N, d), texts: (M, d), of length 1.
      caption: (N,), which text is whose.
    """
    near = picture @ texts.T
    own = jnp.take_along_axis(near, caption[:, None], 1)
    return jnp.mean(jnp.sum(near > own, 1) < first)
