"""Calibration of a network's scores into probabilities: eight in ten claims with probability 0.8 should be true.

The validity head is fitted to the items that the network was trained on, so its probabilities do not hold for other
items. Cosines are not probabilities, and they cannot be compared across relations: the loss contrasts items under one
relation, so adding a constant to all scores of a relation does not change the loss.

Two maps with few parameters are therefore fitted to validation items. The first converts the log-odds of the head into
the probability of a claim, with one scale, one bias (Platt 1999) and a lapse rate. The second converts the cosines of a
pair under all relations into the probability of each relation, with one scale, one bias per relation and a softmax
(vector scaling, Guo et al. 2017, with one scale for all relations). It is fitted separately for each `Similarity`.

`rcml train` fits the calibration and stores it in the checkpoint as `calibration.json`. `indexes` applies it without
torch.
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
from model.plain_file import faults_of, read_plain
from model.similarity import Similarity

CALIBRATION_FILE = "calibration.json"

COSINE_SCALE_RANGE = (1e-2, 1e3)
"""Allowed range of the scale of cosines, limited for the same reasons as `LOG_ODDS_SCALE_RANGE`."""

LOG_ODDS_SCALE_RANGE = (0.1, 10.0)
"""Allowed range of the scale of log-odds.

A positive scale preserves the order of the scores. The upper bound keeps the scale finite if the scores separate true
claims from false ones perfectly.
"""

MAX_LAPSE_RATE = 0.25
"""Upper bound of the fitted lapse rate."""


class PlattScaling(BaseModel):
    """Map from log-odds x to the probability lapses + (1 - 2 lapses) / (1 + exp(-(scale x + bias))).

    A lapse is a claim whose label (true or false) contradicts all of the evidence: a pair bought by chance, or a pair
    that goes together but was never bought. Without a lapse rate, a few confident errors would flatten the whole curve.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    bias: float = Field(0.0, allow_inf_nan=False)
    lapses: float = Field(0.0, ge=0, lt=0.5)

    @classmethod
    def fit(cls, log_odds: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"]) -> "PlattScaling":
        """Fit the map to `valid` by maximum likelihood.

        The lapse rate has a lower bound that is larger for fewer claims, so a fit to few claims never returns a
        probability near 0 or 1.
        """
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
        """Compute the probability in [0, 1] that each claim is true."""
        sigmoid = _sigmoid(self.scale * log_odds.astype(np.float64) + self.bias)
        return np.asarray(self.lapses + (1 - 2 * self.lapses) * sigmoid)


class VectorScaling(BaseModel):
    """Map from the scores of several answers to probabilities: one scale, one bias per answer, and a softmax.

    Each question (one pair of items) has one row of scores, and each possible answer (a relation) has one column. If
    `biases` is empty, all biases are zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    biases: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls, scores: Float[ndarray, "questions answers"], truth: Int[ndarray, " questions"]
    ) -> "VectorScaling":
        """Fit the map to the true answers by maximum likelihood; `truth` contains their columns in `scores`.

        The log-likelihood is concave. If the true answer of every question had the highest score, the best scale would
        be infinite. The target probability of a true answer is therefore slightly below 1, as in Platt (1999). It
        approaches 1 as the number of questions grows.
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
        """Compute the probability in [0, 1] of each answer; the probabilities of all answers to a question sum to 1.

        Answers that were added after the fit come last. Their bias is zero, which is the mean of the fitted biases.
        """
        biases = np.zeros(scores.shape[-1])
        biases[: len(self.biases)] = self.biases
        return np.asarray(np.exp(_log_softmax(self.scale * scores.astype(np.float64) + biases)))


class Calibration(BaseModel):
    """Maps from scores to probabilities, and the numbers of claims and edges that they were fitted to.

    The default does not calibrate: log-odds go through the plain sigmoid, and cosines through the plain softmax.
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

        `log_odds` are the outputs of the head for each claim, and `valid` is True for each true claim. `scores` are
        the cosines of the two items of each edge under every inter-sample relation, and `truth` contains the column of
        the edge's own relation.
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
        """Read `calibration.json` in `folder`; a checkpoint without this file is uncalibrated.

        Raises:
            ArtifactError: another version of rcml wrote the file in another format.
        """
        path = folder / CALIBRATION_FILE
        try:
            return cls.model_validate_json(read_plain(path))
        except FileNotFoundError:
            return UNCALIBRATED
        except ValidationError as error:
            raise ArtifactError(
                f"{path} was written by another version of rcml ({faults_of(error)}). Train the checkpoint again with "
                "this version."
            ) from None

    def save(self, folder: Path) -> None:
        """Write `calibration.json` into `folder`, unless this is the default, which does not calibrate."""
        if self != UNCALIBRATED:
            (folder / CALIBRATION_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @property
    def version(self) -> str:
        """ID of this calibration: the first 12 hexadecimal digits of its SHA-256, or "none" for the default."""
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
        """Compute the probability of each inter-sample relation, given that one of them holds."""
        return self.relation_types[similarity].probability(scores).astype(np.float32)


UNCALIBRATED = Calibration()
"""Default calibration, used for a checkpoint without `calibration.json`."""


def _sigmoid(values: Float[ndarray, " claims"]) -> Float[ndarray, " claims"]:
    return np.asarray(0.5 * (1.0 + np.tanh(values / 2)))  # exp would overflow, tanh does not


def _log_softmax(scores: Float[ndarray, "*questions answers"]) -> Float[ndarray, "*questions answers"]:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _rounded(parameter: float) -> float:
    """Round to six decimal places, which is more than the accuracy of the fit."""
    return round(float(parameter), 6)
