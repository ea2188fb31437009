"""What a training run of StackGAN-v2 consists of: a tree of generators, its judges, and the reader of texts.

A picture's label is its text: the name of its class, or its own caption. One loss holds both sides of the game
(`generator.game_loss`), so the one trainer moves generator, judges and encoders at once. See `run.Run`.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import adversarial, data, generator, text
from diffinv.schema import Schema, number, switch, whole
from diffinv.weights import cards
from diffinv.weights.cards.generators import GAME
from experiments.common import provenance, reading
from experiments.tasks.consistency import energy
from experiments.tasks.denoising import COARSE, LEVELS, TAKEN, augmented, wanted

OURS = ("size", "channels", "words")
FIELDS: Schema = {
    "captions": switch("labels are captions: NAME.txt beside NAME.png, or the names of a pack's pictures"),
    "texts": switch("whether there are texts; without, noise takes their place"),
    "least": whole("captions that a word must stand in, to be read", 1, 10**6),
    "text_weight": number("of the text's divergence; net.width / 2 is the paper's 1", low=0, high=1e6),
    "colour_weight": number("of colour consistency, 50 in the source without a text", low=0, high=1e6),
    "slope_weight": number("of the judges' slope at real pictures (R1), 0 in the source", low=0, high=1e6),
    "wrong_is_real": switch("the picture of another text counts as real alone, as in the source's code"),
    "contrast_weight": number("of the contrastive loss of text and picture", low=0, high=1e6),
    "temperature": number("of that loss", above=0, high=10),
    "statistics_images": whole("of which the running statistics are", 2, 4096),
}
COLLAPSED = 0.5  # of the pictures' colour entropy


class Adversarial:
    """StackGAN-v2's game, with texts or without."""

    contextual, refresh, rates = False, 0, []

    @staticmethod
    def fields(config) -> Schema:
        """The game's own, its networks, and fields that configurations share and this task does not read."""
        unused = {name: field for name, field in {**TAKEN, **COARSE, **LEVELS}.items() if name in config}
        return {**unused, **FIELDS, "net": {name: field for name, field in GAME.items() if name not in OURS}}

    @staticmethod
    def check(config) -> None:
        """The networks must fit the pictures."""
        cards.build_game({**config.net.to_dict(), "size": config.size, "channels": config.channels}, "config.net")

    @staticmethod
    def source(config, split: str, folder: str, watch=iter) -> data.Source:
        """The pictures of one split, their texts as labels."""
        read = replace(reading.reading(), captions=config.captions)
        given = (split, folder, config.channels, config.download, read)
        return wanted(config, data.source(config.data, config.size, *given, watch=watch))

    def __init__(self, config, source: data.Source):
        self.config, self.shape = config, (config.size, config.size, config.channels)
        self.captions = list(map(provenance.plain, source.classes))
        self.words = text.vocabulary(self.captions, config.least) if config.texts else ()
        if config.texts and not self.words:
            raise ValueError(
                f"config.data is {config.data!r}, whose labels {self.captions[:3]} hold no word; give "
                "--config.captions=True with texts beside the pictures, or --config.texts=False"
            )
        chosen = {**config.net.to_dict(), "size": config.size, "channels": config.channels, "words": len(self.words)}
        self.architecture, self.game = chosen, cards.build_game(chosen, "config.net")
        read = lambda each: text.tokens(each, self.words, self.game.length, strict=False)
        empty = np.zeros(self.game.length, np.int32)
        self.tokens = np.stack([read(each) if text.words(each) else empty for each in self.captions])
        weights = {name: config[name] for name in ("text_weight", "colour_weight", "wrong_is_real", "slope_weight")}
        contrast = {name: config[name] for name in ("contrast_weight", "temperature")}
        self.game_loss = generator.game_loss(self.game, **weights, **contrast)

    def init(self, key):
        return generator.drawn(key, self.game)

    def frozen(self, params):
        return None

    def finished(self, key, params):
        """With running statistics of the training's texts."""
        label_key, key = jax.random.split(key)
        count = self.config.statistics_images
        label = jax.random.randint(label_key, (count,), 0, len(self.captions))
        return generator.with_running_statistics(key, self.game, params, self.texts(label), count)

    def texts(self, label):
        """The tokens (N, length) of labels (N,); None where there are no texts."""
        return jnp.asarray(self.tokens)[label] if self.words else None

    def examples(self, key, images, label):
        """The batch that the game is played on: every picture with its text, and beside one of another text."""
        if not self.words:
            return {"image": images}
        other = jax.random.categorical(key, jnp.where(label[:, None] != label[None], 0.0, -1e9))
        return {"image": images, "caption": label, "tokens": self.texts(label), "other": images[other]}

    def loss(self, key, params, batch):
        images, _ = augmented(self.config, key, batch)
        return self.game_loss(
            jax.random.fold_in(key, 3), params, self.examples(jax.random.fold_in(key, 2), images, batch["label"])
        )

    def generated(self, key, params, label):
        """Pictures of the labels' texts, with the batch's own statistics, by side."""
        tokens = self.texts(label)
        model = self.model(generator.with_running_statistics(key, self.game, params, tokens, len(label)))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(label))
        return jax.vmap(model, (0, 0 if self.words else None))(keys, tokens).pictures

    def errors(self, key, params, batch):
        """Energy distance of generated to real pictures at each side, the loss of colours, and texts that are missed.

        "text" is the share of generated pictures to which another caption is nearer than their own, "real text" the
        share of held-out pictures.
        """
        images, label = data.to_unit(batch["image"]), batch["label"]
        made, sides = self.generated(key, params, label), self.game.sides
        real = jax.vmap(lambda x: adversarial.pyramid(x, sides))(images)
        found = {f"energy {side}": energy(a, b) for side, a, b in zip(sides, made, real, strict=True)}
        entropies = adversarial.colour_entropy(made[-1]), adversarial.colour_entropy(images)
        found["colours lost"] = 1 - entropies[0] / jnp.maximum(entropies[1], 1e-6)
        if self.words:
            texts = generator.embedded_texts(self.game, params, self.tokens)
            miss = lambda pictures: 1 - text.text_match(generator.viewed(self.game, params, pictures), texts, label)
            found |= {"text": miss(made[-1]), "real text": miss(images)}
        return found

    def alarm(self, errors: dict[str, float]) -> str:
        """Where the colours are lost that the pictures have, as a collapse of the generator shows first."""
        lost = errors["colours lost"]
        if lost < COLLAPSED:
            return ""
        return f"mode collapse: generated pictures lost {lost:.0%} of the colour entropy; lower config.learning_rate"

    def prompts(self, source: data.Source, count: int):
        """Texts, a row of the grid each; those of a sample of the captions where they are more than the rows."""
        side = self.config.sample_grid
        rows = np.linspace(0, len(self.captions) - 1, min(side, len(self.captions))).astype(int)
        return self.tokens[rows[np.arange(count) // side % len(rows)]]

    def model(self, params):
        return generator.TextToImage(params, self.game, self.words, tuple(self.captions))

    def sample(self, key, params, prompt):
        return self.model(params)(key, prompt if self.words else None).pictures[-1]

    def card(self) -> dict:
        config = self.config
        told = {"generator": self.architecture, "words": list(self.words), "labels": self.captions}
        weighed = f"text {config.text_weight}, colours {config.colour_weight}, slopes {config.slope_weight}"
        weighed += f", contrast {config.contrast_weight}"
        return told | {"method": "StackGAN-v2", "schedule": f"both sides at once; {weighed}"}
