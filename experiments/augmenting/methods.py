"""The diffusion recipes that `experiments.augment` tries, with the strengths that validation pictures choose from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from diffinv import data
from diffinv.augmentation import Recipe, free, from_changed, from_prior, labelled, recipes, unlabelled
from diffinv.augmentation.recipes import Plan
from diffinv.typing import Key, Sample
from experiments.augmenting.reward import climbing, from_expanded


class Setting(NamedTuple):
    """What a recipe is made of, beside its own numbers.

    Attributes:
      null: the label that says nothing.
      sigma_data: deviation of the pictures.
      sigmas: strengths to choose from.
      guidance: the classifier-free weight.
      steps: of the sampler.
    """

    null: int
    sigma_data: float
    sigmas: tuple[float, ...]
    guidance: float
    steps: int


Variants = dict[str, Plan]
"""Plans by the name of their strength; a single one is not chosen."""


def moves(config) -> Callable[[Key, Sample], Sample] | None:
    """What recipes do with real pictures first, `config.moved`; None for nothing."""
    if not config.moved:
        return None
    return partial(data.augment, flip=config.flip, shift=config.shift, turn=config.turn)


def moving(plan: Plan, change: Callable[[Key, Sample], Sample]) -> Plan:
    """The plan with starts of moved pictures; those out of noise stay."""
    start = lambda recipe: (
        recipe if recipe.start is from_prior else recipe._replace(start=from_changed(recipe.start, change))
    )
    return plan._replace(recipes=tuple(map(start, plan.recipes)))


def _each(setting: Setting, plan: Callable[[float], Plan]) -> Variants:
    return {f"sigma {sigma:g}": plan(sigma) for sigma in setting.sigmas}


def sdedit(setting: Setting) -> Variants:
    """Learnt words, then SDEdit: DA-Fusion's design without guidance and at one strength."""
    return _each(setting, lambda sigma: recipes.sdedit(sigma, learns=recipes.embeddings, steps=setting.steps))


def sdedit_without_words(setting: Setting) -> Variants:
    """SDEdit by the frozen prior, told no class: Real Guidance where the prior does not know the class."""
    guide = unlabelled(setting.null)
    return _each(setting, lambda sigma: recipes.sdedit(sigma, guide, steps=setting.steps))


def from_words(setting: Setting) -> Variants:
    """Learnt words, then samples out of noise."""
    return {"": recipes.class_sampling(labelled, recipes.embeddings, setting.steps)}


def class_sampling(setting: Setting) -> Variants:
    """All weights fine-tuned, then samples out of noise."""
    return {"": recipes.class_sampling(steps=setting.steps)}


def da_fusion(setting: Setting) -> Variants:
    """As published, but for the guidance's weight, which is a field."""
    return {"": recipes.da_fusion(setting.null, setting.sigma_data, weight=setting.guidance, steps=setting.steps)}


def diff_ii(setting: Setting) -> Variants:
    """Between two inversions, on the circle."""
    return {"": recipes.diff_ii(steps=setting.steps)}


def diff_mix(setting: Setting) -> Variants:
    """Pictures of frequent classes made into rare ones."""
    return _each(setting, lambda sigma: recipes.diff_mix(sigma, steps=setting.steps))


def guided_sdedit(setting: Setting) -> Variants:
    """Learnt words, SDEdit, and classifier-free guidance."""
    guide = free(setting.guidance, setting.null)
    return _each(setting, lambda sigma: recipes.sdedit(sigma, guide, recipes.embeddings, setting.steps))


def rewarded_sdedit(setting: Setting) -> Variants:
    """Learnt words, SDEdit, and guidance by a classifier of the training pictures."""
    return _each(setting, lambda sigma: recipes.sdedit(sigma, climbing(1.0), recipes.embeddings, setting.steps))


def gif(setting: Setting) -> Variants:
    """Learnt words, and GIF's starts: noised pictures, moved to where a classifier finds them telling and unlike."""
    plan = lambda sigma: Plan(recipes.embeddings, (Recipe(from_expanded, sigma, steps=setting.steps),))
    return _each(setting, plan)


METHODS: dict[str, Callable[[Setting], Variants]] = {
    "SDEdit": sdedit,
    "SDEdit without words": sdedit_without_words,
    "guided SDEdit": guided_sdedit,
    "words": from_words,
    "class sampling": class_sampling,
    "DA-Fusion": da_fusion,
    "Diff-II": diff_ii,
    "Diff-Mix": diff_mix,
    "rewarded SDEdit": rewarded_sdedit,
    "GIF": gif,
}
