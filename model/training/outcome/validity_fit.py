"""Fit of the relation-validity head to claims (section 4.3.3), with torch; `ValidityHead` evaluates it in NumPy.

The recipe is that of scikit-learn's `MLPClassifier`: 64 ReLU units, Glorot initialisation, Adam with an L2 penalty, and
early stopping on the accuracy of a tenth of the claims. Four changes make it several times as fast. The features of the
two items are computed once. The first layer is applied to the features of each distinct relation once per step, instead
of once per claim. Many claims are fitted in larger batches. And a CPU with bf16 hardware multiplies wide features in
bf16.
"""

import copy
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from model.checkpoint.calibration import Calibration
from model.checkpoint.validity import VALIDITY_THRESHOLD, PairVectors, ValidityHead
from model.embeddings.encoding import Encoding
from model.encoder.encoder import Encoder
from model.evaluation.metrics import relation_type_scores
from model.evaluation.sampling import LabelledPairs, sample_labelled_pairs
from model.network.inference.precision import MIN_WIDTH, computes_in_bf16
from model.records import Split
from model.similarity import Similarity
from model.training.batches import Part

HIDDEN = 64
MAX_EPOCHS = 60

BATCH_SIZE = 256
"""Number of claims per step of Adam, if there are few claims; also the number that the L2 penalty is divided by."""

MAX_BATCH_SIZE = 1024
"""Number of claims per step of Adam, if there are many claims."""

MIN_STEPS = 16
"""Minimum number of steps per epoch for batches larger than `BATCH_SIZE`."""

LEARNING_RATE = 1e-3
"""Learning rate for `BATCH_SIZE`; it grows with the square root of the batch size (Malladi et al. 2022)."""

L2_PENALTY = 1.0
"""Weight of the squared weights in the loss, before it is divided by `BATCH_SIZE`."""

HELD_OUT = 0.1
"""Share of the claims of each label whose accuracy decides when to stop."""

MIN_CLAIMS_TO_STOP = 100
"""Minimum number of claims for early stopping; a tenth of fewer claims is too small a sample."""

PATIENCE = 6
"""Number of epochs without a better accuracy after which the fit continues for one last epoch."""

MIN_GAIN = 1e-4
"""Minimum gain of accuracy that counts as better."""


MAX_FITTED_CLAIMS = 20_000
"""Maximum number of claims or edges that the validity head or a calibration map is fitted to."""


def fit_validity(
    encoder: Encoder,
    parts: Mapping[Split, Part],
    encodings: Mapping[Split, Encoding],
    domain_of_relation: Int[ndarray, " relations"],
    seed: int,
    device: torch.device,
) -> tuple[ValidityHead, Calibration, float]:
    """Fit the validity head to the training split and the calibration to the validation split; the network is frozen.

    The false claims are made of the items and relations of one domain, as an index asks them. The returned accuracy is
    that of the uncalibrated head on the validation split.
    """
    rng = np.random.default_rng(seed)
    known = np.array([row for row, relation in enumerate(encoder.relations) if not relation.intra])
    judged = {}
    for split, part in parts.items():
        claims = LabelledPairs.joined(
            [
                sample_labelled_pairs(
                    own,
                    np.flatnonzero(domain_of_relation == domain_of_relation[own.relation[0]]),
                    MAX_FITTED_CLAIMS,
                    rng,
                )
                for own in part.edges.by_domain(domain_of_relation)
            ]
        )
        judged[split] = (claims.vectors(encodings[split], encoder.relation_vectors), claims.valid)
    head = fit_validity_head(*judged[Split.TRAIN], seed, device)
    pairs, valid = judged[Split.VALIDATION]
    encoding = encodings[Split.VALIDATION]
    edges = parts[Split.VALIDATION].edges
    edges = edges.take(np.sort(rng.permutation(len(edges))[:MAX_FITTED_CLAIMS]))
    calibration = Calibration.fit(
        head.log_odds(pairs),
        valid,
        {similarity: relation_type_scores(encoding, edges, similarity, known) for similarity in Similarity},
        np.searchsorted(known, edges.relation),
    )
    return head, calibration, float(((head.probability(pairs) >= VALIDITY_THRESHOLD) == valid).mean())


class _Claims:
    """Claims on one device: features of the two items, the position of the relation, and the label (1.0 if true)."""

    def __init__(self, pairs: PairVectors, valid: Bool[ndarray, " claims"], device: torch.device) -> None:
        # Compare rows as bytes: claims under one relation have the same vector.
        rows = np.ascontiguousarray(pairs.relation)
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
        _, first, relation = np.unique(keys, return_index=True, return_inverse=True)
        self.items = torch.from_numpy(pairs.item_features()).to(device)
        if device.type == "cpu" and rows.shape[1] >= MIN_WIDTH and computes_in_bf16():
            self.items = self.items.bfloat16()
        self.relation = torch.from_numpy(relation).to(device)
        self.valid = torch.from_numpy(valid.astype(np.float32)).to(device)
        self.relations = torch.from_numpy(pairs.relation_features(first)).to(device)


class _Mlp(nn.Module):
    """MLP whose first layer is split into the part of the items and the part of the relation."""

    def __init__(self, items: int, relation: int, generator: torch.Generator) -> None:
        super().__init__()
        first = math.sqrt(6 / (items + relation + HIDDEN))  # bound of Glorot & Bengio (2010)
        second = math.sqrt(6 / (HIDDEN + 1))

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)

        self.of_items = uniform(first, items, HIDDEN)
        self.of_relation = uniform(first, relation, HIDDEN)
        self.bias_1 = uniform(first, HIDDEN)
        self.weight_2 = uniform(second, HIDDEN)
        self.bias_2 = uniform(second)

    def forward(self, claims: _Claims, rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Compute the log-odds of the claims at `rows`."""
        shared = claims.relations @ self.of_relation + self.bias_1
        own = (claims.items[rows] @ self.of_items.to(claims.items.dtype)).float()
        hidden = F.embedding(claims.relation[rows], shared) + own
        return hidden.relu() @ self.weight_2 + self.bias_2


def fit_validity_head(
    pairs: PairVectors, valid: Bool[ndarray, " claims"], seed: int, device: torch.device
) -> ValidityHead:
    """Fit the head to the claims `pairs` and their labels `valid`; on a CPU, a seed always gives the same head.

    The returned weights are those of the epoch with the best accuracy on the held-out claims. Fewer than
    `MIN_CLAIMS_TO_STOP` claims are fitted for `MAX_EPOCHS` epochs.
    """
    generator = torch.Generator().manual_seed(seed)
    claims = _Claims(pairs, valid, device)
    network = _Mlp(claims.items.shape[1], claims.relations.shape[1], generator).to(device)
    fitted, held_out = _split(valid, generator)
    batch = min(max(BATCH_SIZE, len(fitted) // MIN_STEPS), MAX_BATCH_SIZE, len(fitted))
    penalised = [network.of_items, network.of_relation, network.weight_2]
    optimizer = torch.optim.Adam(
        [
            {"params": penalised, "weight_decay": L2_PENALTY / min(BATCH_SIZE, batch)},
            {"params": [network.bias_1, network.bias_2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE * math.sqrt(max(batch / BATCH_SIZE, 1.0)),
        fused=True,
    )
    best, best_weights, waited = -1.0, network.state_dict(), 0
    for _ in range(MAX_EPOCHS):
        for rows in _shuffled(fitted, batch, generator):
            rows = rows.to(device)
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(network(claims, rows), claims.valid[rows]).backward()
            optimizer.step()
        if not len(held_out):
            continue
        accuracy = _accuracy(network, claims, held_out.to(device))
        waited = 0 if accuracy >= best + MIN_GAIN else waited + 1
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(network.state_dict())
        if waited > PATIENCE:
            break
    weights = best_weights if len(held_out) else network.state_dict()
    arrays = {name: weight.cpu().numpy() for name, weight in weights.items()}
    first = np.concatenate([arrays["of_items"], arrays["of_relation"]])
    return ValidityHead(first, arrays["bias_1"], arrays["weight_2"], arrays["bias_2"])


def _split(
    valid: Bool[ndarray, " claims"], generator: torch.Generator
) -> tuple[Int[Tensor, " fitted"], Int[Tensor, " held_out"]]:
    """Divide the claims into those to fit and those held out, with the same share of each label."""
    share = HELD_OUT if len(valid) >= MIN_CLAIMS_TO_STOP else 0.0
    fitted, held_out = [], []
    for label in (True, False):
        rows = torch.from_numpy(np.flatnonzero(valid == label))
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = round(share * len(rows))
        held_out.append(rows[:count])
        fitted.append(rows[count:])
    return torch.cat(fitted), torch.cat(held_out)


def _shuffled(
    rows: Int[Tensor, " rows"], batch: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " batch"]]:
    yield from rows[torch.randperm(len(rows), generator=generator)].split(batch)


@torch.no_grad()
def _accuracy(network: _Mlp, claims: _Claims, rows: Int[Tensor, " rows"]) -> float:
    return float(((network(claims, rows) >= 0) == (claims.valid[rows] > 0.5)).float().mean())
