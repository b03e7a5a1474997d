"""Calibration of a network's scores into probabilities: of the claims at 0.8, eight in ten should be true.

The validity head is fitted to training items, whose vectors the network has shaped, so it takes others to be like
them. Cosines are no probabilities at all, nor do they compare across relations: the loss contrasts items under
one relation, and one constant a relation, whatever it is, leaves it as it was. Both are put right on validation
items by the smallest map that can: one scale and one bias of the head's log-odds (Platt 1999) and a rate of lapses; for
relation types, by similarity, one scale of the cosines and one bias a relation before a softmax (vector scaling, Guo
et al. 2017, with one scale for all).

Fitted by `rcml train`, kept in the checkpoint as `calibration.json`, applied by `indexes` without torch.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.errors import ArtifactError
from model.similarity import Similarity

CALIBRATION_FILE = "calibration.json"

COSINE_SCALE_RANGE = (1e-2, 1e3)
LOG_ODDS_SCALE_RANGE = (0.1, 10.0)
"""Positive, so that what is likelier by its score stays so; and scores that never err are not scaled without end."""

MAX_LAPSE_RATE = 0.25


class PlattScaling(BaseModel):
    """Probability of log-odds x: lapses + (1 - 2 lapses) / (1 + exp(-(scale x + bias))).

    Lapses are claims that turn out contrary to all that is seen of them: a pair bought by chance, a pair that goes
    together and was never bought. Without them, the few that were held for sure and are wrong flatten the whole curve.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    bias: float = Field(0.0, allow_inf_nan=False)
    lapses: float = Field(0.0, ge=0, lt=0.5)

    @classmethod
    def fit(cls, log_odds: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"]) -> "PlattScaling":
        """Maximise the likelihood of `valid`; few claims never give near certainty."""
        from scipy.optimize import minimize

        claims = len(valid)
        log_odds = log_odds.astype(np.float64)

        def loss(parameters: Float[ndarray, "3"]) -> tuple[float, Float[ndarray, "3"]]:
            scale, bias, lapses = parameters
            sigmoid = _sigmoid(scale * log_odds + bias)
            probability = lapses + (1 - 2 * lapses) * sigmoid
            of_truth = np.where(valid, probability, 1 - probability)
            slope = np.where(valid, -1.0, 1.0) / of_truth / claims
            inner = slope * (1 - 2 * lapses) * sigmoid * (1 - sigmoid)
            gradient = [(inner * log_odds).sum(), inner.sum(), (slope * (1 - 2 * sigmoid)).sum()]
            return -float(np.log(of_truth).mean()), np.array(gradient)

        least = min(1.0 / (claims + 2.0), MAX_LAPSE_RATE)
        bounds = [LOG_ODDS_SCALE_RANGE, (None, None), (least, MAX_LAPSE_RATE)]
        start = np.array([1.0, 0.0, least])
        scale, bias, lapses = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return cls(scale=_rounded(scale), bias=_rounded(bias), lapses=_rounded(lapses))

    def probability(self, log_odds: Float[ndarray, " claims"]) -> Float[ndarray, " claims"]:
        """Compute the probability of each claim that it is true, in [0, 1]."""
        sigmoid = _sigmoid(self.scale * log_odds.astype(np.float64) + self.bias)
        return np.asarray(self.lapses + (1 - 2 * self.lapses) * sigmoid)


class VectorScaling(BaseModel):
    """A scale of the scores of some answers, and a bias of each, before a softmax; no biases are all zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    biases: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls, scores: Float[ndarray, "questions answers"], truth: Int[ndarray, " questions"]
    ) -> "VectorScaling":
        """Maximise the likelihood of the true answers, columns of `scores`, which is concave.

        Where the scores never err it would grow for ever. So the truth is held for a little less than sure, in the way
        of Platt's targets: the more questions, the surer.
        """
        from scipy.optimize import minimize

        questions, answers = scores.shape
        if answers == 1:
            return cls(biases=(0.0,))
        doubt = 1.0 / (questions + 2.0)
        target = np.full(scores.shape, doubt / (answers - 1))
        target[np.arange(questions), truth] = 1.0 - doubt
        scores = scores.astype(np.float64)

        def loss(parameters: Float[ndarray, " parameters"]) -> tuple[float, Float[ndarray, " parameters"]]:
            log_probability = _log_softmax(parameters[0] * scores + parameters[1:])
            error = (np.exp(log_probability) - target) / questions
            return (
                -float((target * log_probability).sum()) / questions,
                np.concatenate([[(error * scores).sum()], error.sum(axis=0)]),
            )

        start = np.concatenate([[1.0], np.zeros(answers)])
        bounds = [COSINE_SCALE_RANGE] + [(None, None)] * answers
        scale, *biases = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        mean = float(np.mean(biases))
        return cls(scale=_rounded(scale), biases=tuple(_rounded(bias - mean) for bias in biases))

    def probability(
        self, scores: Float[ndarray, "*questions answers"]
    ) -> Float[ndarray, "*questions answers"]:
        """Compute the probability of each answer, in [0, 1]; those of a question add up to 1.

        Answers beyond those it was fitted to, which come last, have the mean of all biases, which is zero.
        """
        biases = np.zeros(scores.shape[-1])
        biases[: len(self.biases)] = self.biases
        return np.asarray(np.exp(_log_softmax(self.scale * scores.astype(np.float64) + biases)))


class Calibration(BaseModel):
    """The maps from scores to probabilities, and on how many questions they were fitted.

    By default it changes nothing: log-odds are taken at their word, and cosines go into the softmax as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validity: PlattScaling = PlattScaling()
    relation_types: dict[Similarity, VectorScaling] = Field(
        default_factory=lambda: dict.fromkeys(Similarity, VectorScaling())
    )
    claims: int = Field(0, ge=0)
    edges: int = Field(0, ge=0)

    @classmethod
    def fit(
        cls,
        log_odds: Float[ndarray, "claims"],
        valid: Bool[ndarray, "claims"],
        scores: Mapping[Similarity, Float[ndarray, "edges relations"]],
        truth: Int[ndarray, "edges"],
    ) -> "Calibration":
        """Fit to claims and edges that neither the network nor the validity head was fitted to.

        `log_odds` are what the head says of each claim, and `valid` whether it is true. `scores` are the cosines of
        each edge's items under every relation between different items, `truth` the column of the edge's own.
        """
        return cls(
            validity=PlattScaling.fit(log_odds, valid),
            relation_types={
                similarity: VectorScaling.fit(found, truth) for similarity, found in scores.items()
            },
            claims=len(valid),
            edges=len(truth),
        )

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """Read what `save` wrote; a checkpoint without it is uncalibrated.

        Raises:
            ArtifactError: another version of rcml wrote it, in another form.
        """
        path = folder / CALIBRATION_FILE
        if not path.is_file():
            return UNCALIBRATED
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is of another version of rcml ({error}); train again with this one."
            ) from None

    def save(self, folder: Path) -> None:
        """Write `calibration.json` into `folder`, unless it changes nothing."""
        if self != UNCALIBRATED:
            (folder / CALIBRATION_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @property
    def version(self) -> str:
        """Name of this calibration: the first 12 hexadecimal digits of its SHA-256, or "none"."""
        if self == UNCALIBRATED:
            return "none"
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def validity_probability(self, log_odds: Float[ndarray, "claims"]) -> Float32[ndarray, "claims"]:
        """Compute the probability in [0, 1] that each claim is true."""
        return self.validity.probability(log_odds).astype(np.float32)

    def relation_probabilities(
        self, scores: Float[ndarray, "*pairs relations"], similarity: Similarity
    ) -> Float32[ndarray, "*pairs relations"]:
        """Compute the probability of each relation between different items, given that one of them holds."""
        return self.relation_types[similarity].probability(scores).astype(np.float32)


UNCALIBRATED = Calibration()
"""The calibration of a checkpoint made before there was any."""


def _sigmoid(values: Float[ndarray, " claims"]) -> Float[ndarray, " claims"]:
    return np.asarray(0.5 * (1.0 + np.tanh(values / 2)))  # exp would overflow


def _log_softmax(scores: Float[ndarray, "*questions answers"]) -> Float[ndarray, "*questions answers"]:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _rounded(parameter: float) -> float:
    """More digits than matter."""
    return round(float(parameter), 6)
