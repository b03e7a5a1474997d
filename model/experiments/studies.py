"""Variants of a training: ablations of the paper (section 4.4, figure 4) and of this project, objectives, and sweeps.

Each variant changes one option of the training that is studied, the *reference*. An option that was not given keeps its
default, which may depend on the changed option: --tune frozen has a learning rate of its own, for example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import AblateConfig, Objective, Study, TrainConfig

FULL = "full"
"""Name of the reference of the ablations: the training as the options describe it."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    FULL: {},
    "w/o inter edges": {"inter_edges": False},
    "w/o intra loss": {"intra_modal_weight": 0.0},
    "w/o descriptions": {"objective": "blind"},
    "frozen": {"tune": "frozen"},
    "w/o centring": {"conditioning": "paper"},
    "w/o bias": {"conditioning": "centred"},
}
"""Changed options of each ablation."""

OBJECTIVES: Sequence[Objective] = ("rcml", "blind", "clip", "siglip", "unicl", "declip")
"""Values of --objective that the study `objectives` compares; the first is the reference."""

SWEEPS: Mapping[Study, tuple[str, Sequence[float]]] = {
    "beta": ("beta", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    "temperature": ("temperature", (0.02, 0.05, 0.1, 0.2, 0.5)),
    "lambda": ("intra_modal_weight", (0.0, 0.25, 0.5, 1.0, 2.0)),
    "batch-size": ("batch_size", (32, 64, 128, 256, 512)),
}
"""Option and values of each sweep; the value of the reference is added. The values of beta are the paper's (figure 5).
"""


@dataclass(frozen=True)
class Variant:
    """Training of a study; `value` is its value of the option that a sweep varies, and None in other studies."""

    name: str
    changes: Mapping[str, Any] = field(hash=False)
    value: float | None = None

    @property
    def options(self) -> str:
        """The changed options, as one types them; empty for the reference of the ablations."""
        return " ".join(_typed(name, value) for name, value in self.changes.items())

    def training(self, config: AblateConfig, seed: int) -> TrainConfig:
        """Return the options of this training with `seed`; only options that were given replace defaults."""
        given = {
            name: getattr(config, name) for name in config.model_fields_set & TrainConfig.model_fields.keys()
        }
        return TrainConfig(**{**given, **self.changes, "seed": seed, "out": self.folder(config.out, seed)})

    def folder(self, out: Path, seed: int) -> Path:
        """Return the folder of the checkpoint."""
        name = self.name.replace("w/o", "without").replace(" ", "-")
        return out / "runs" / f"{name}-seed{seed}"


@dataclass(frozen=True)
class Variants:
    """Variants of a study, the name of the reference among them, and the reason for each that is left out."""

    reference: str
    tried: Sequence[Variant]
    left_out: Mapping[str, str]


def variants_of(config: AblateConfig) -> Variants:
    """Return the variants of the study that `config` asks for."""
    if config.study == "ablations":
        return _ablations(config)
    if config.study == "objectives":
        return _objectives(config)
    option, values = SWEEPS[config.study]
    own = getattr(config, option)
    label = config.study.replace("-", " ")
    tried = [Variant(f"{label} {value:g}", {option: value}, value) for value in sorted({*values, own})]
    return Variants(f"{label} {own:g}", tried, {})


def _ablations(config: AblateConfig) -> Variants:
    full = Variant(FULL, {})
    tried, left_out = [full], {}
    for name, changes in ABLATIONS.items():
        variant = Variant(name, changes)
        if name == FULL:
            continue
        if changes.get("tune") and config.from_scratch:
            left_out[name] = "it needs a pretrained backbone (--backbone)"
        elif config.conditioning == "paper" and "conditioning" in changes:
            left_out[name] = "the reference has neither centring nor a bias (--conditioning paper)"
        elif _same(variant.training(config, 0), full.training(config, 0)):
            left_out[name] = f"it equals the reference, which already has {variant.options}"
        else:
            tried.append(variant)
    return Variants(FULL, tried, left_out)


def _objectives(config: AblateConfig) -> Variants:
    without_views = not config.augment and config.tune != "frozen"
    left_out = {"declip": "it needs augmented pictures (without --no-augment)"} if without_views else {}
    tried = [Variant(name, {"objective": name}) for name in OBJECTIVES if name not in left_out]
    return Variants(OBJECTIVES[0], tried, left_out)


def _same(one: TrainConfig, other: TrainConfig) -> bool:
    return one.model_dump(exclude={"out"}) == other.model_dump(exclude={"out"})


def _typed(name: str, value: object) -> str:
    option = name.replace("_", "-")
    return f"--no-{option}" if value is False else f"--{option} {value}"
