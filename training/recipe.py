"""A recipe: one TOML file that says everything about a training run but where its data are.

[model] is the kind of network and its arguments, [diffusion] what it learns, [train] how. A key that nobody knows, one that is
missing, or a value of the wrong type is refused in one line: a typo must not cost an hour of training.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from steps import rate_at

from unsample.core.reading import read_text, toml_of

PREDICTIONS = ("epsilon", "v_prediction", "flow")
"""What a network can be taught: the noise, v on the same table of betas, or the velocity of straight paths."""

OF_DIFFUSION = ("timesteps", "beta_start", "beta_end", "prediction")
"""The fields that are in [diffusion]; the others are in [train]."""


class RecipeError(ValueError):
    """A recipe, or something that must go with it, that cannot be trained; one line."""


@dataclass(frozen=True)
class Recipe:
    """A recipe file.

    Attributes:
        model: `kind` ("UNet2DModel" or "DiTTransformer2DModel"; the first if absent), and arguments of that class.
        timesteps: Length of the table of betas; for flows, what t = 1 is called when the network is told.
        prediction: One of `PREDICTIONS`.
        beta_start, beta_end: Of the linear table; nothing to a flow.
        latents: Trains on packed latents instead of images.
        steps, warmup, cooldown: The run, and the steps in which its learning rate rises at its start and falls at its end.
        ema: Decay of the averaged weights per step, once they are warm.
        class_drop: How often an item trains the token for "no class".
        balance: Whether every noise level counts alike.
        snapshots: Shares of the run, 0..1, after which to keep the averaged weights.
        related_classes: Whether class embeddings begin with those of related classes near each other (`classes.py`).
        samples_every: Steps between sheets of samples; 0 for none.
    """

    model: dict[str, Any]
    timesteps: int
    seed: int
    batch: int
    steps: int
    warmup: int
    cooldown: int
    learning_rate: float
    ema: float
    class_drop: float
    balance: bool
    bf16: bool
    channels_last: bool
    compile: bool
    report_every: int
    evaluate_every: int
    checkpoint_every: int
    held_out: int
    snapshots: tuple[float, ...]
    prediction: str = "epsilon"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    latents: bool = False
    related_classes: bool = False
    samples_every: int = field(default=0)

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Recipe:
        """Read a recipe file; ``changes`` take the place of its values.

        Raises:
            RecipeError: It cannot be read, or says something that no recipe says.
        """
        try:
            tables = toml_of(read_text(path))
        except (OSError, ValueError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {' '.join(str(error).split())}") from None
        if set(tables) != {"model", "diffusion", "train"}:
            raise RecipeError(f"{path}: expected the tables model, diffusion and train, given {', '.join(tables) or 'none'}")
        _check_keys(path, tables)
        values = {**tables["diffusion"], **tables["train"], **changes}
        if isinstance(values["snapshots"], list):
            values["snapshots"] = tuple(values["snapshots"])
        recipe = cls(tables["model"], **values)
        _check_values(path, recipe)
        return recipe

    @property
    def kind(self) -> str:
        """The class of the network."""
        return str(self.model.get("kind", "UNet2DModel"))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is made with."""
        return {key: value for key, value in self.model.items() if key != "kind"}

    @property
    def no_class(self) -> int:
        """The token that stands for no class, after the last class."""
        if self.kind == "UNet2DModel":
            return int(self.model["num_class_embeds"]) - 1
        return int(self.model["num_embeds_ada_norm"])  # diffusers adds the token itself

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is denoised."""
        side = int(self.model["sample_size"])
        return int(self.model.get("in_channels", 3 if self.kind == "UNet2DModel" else 4)), side, side

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up, constant, then 1 - sqrt down to (almost) zero over the cooldown."""
        lengths = {"warmup": self.warmup, "cooldown": self.cooldown, "steps": self.steps}
        return rate_at(step, learning_rate=self.learning_rate, **lengths)


def _check_keys(path: Path, tables: dict[str, Any]) -> None:
    known = {one.name: one for one in fields(Recipe) if one.name != "model"}
    places = {"diffusion": set(OF_DIFFUSION), "train": set(known) - set(OF_DIFFUSION)}
    for table, names in places.items():
        unknown = sorted(set(tables[table]) - names)
        if unknown:
            raise RecipeError(f"{path}: [{table}] has no {', '.join(unknown)}; it has {', '.join(sorted(names))}")
        needed = {name for name in names if known[name].default is MISSING}
        missing = sorted(needed - set(tables[table]))
        if missing:
            raise RecipeError(f"{path}: [{table}] lacks {', '.join(missing)}")


def _check_values(path: Path, recipe: Recipe) -> None:
    for name, hint in get_type_hints(Recipe).items():
        value, kind = getattr(recipe, name), get_origin(hint) or hint
        wanted: Any = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise RecipeError(f"{path}: {name} is {value!r}: expected {_name(kind)}")
    rules = {
        f"prediction is one of {', '.join(PREDICTIONS)}": recipe.prediction in PREDICTIONS,
        "batch, steps, timesteps, held_out and the *_every are at least 1": min(
            *(recipe.batch, recipe.steps, recipe.timesteps, recipe.held_out),
            *(recipe.report_every, recipe.evaluate_every, recipe.checkpoint_every),
        )
        >= 1,
        "cooldown is within steps, and no number of steps is negative": 0 <= recipe.cooldown <= recipe.steps
        and min(recipe.warmup, recipe.samples_every, recipe.seed) >= 0,
        "snapshots are shares of the run, above 0 and up to 1": all(0 < share <= 1 for share in recipe.snapshots),
        "ema and class_drop are in 0..1, betas rise in 0..1": 0 <= recipe.ema < 1
        and 0 <= recipe.class_drop <= 1
        and 0 < recipe.beta_start <= recipe.beta_end < 1,
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise RecipeError(f"{path}: expected that {broken[0]}")


def _name(kind: type | types.GenericAlias) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "tuple": "a list"}.get(
        getattr(kind, "__name__", ""), "a table"
    )
