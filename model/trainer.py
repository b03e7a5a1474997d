"""`rcml train`: prepared data -> checkpoint. Reads from top to bottom.

The rivals of the evaluation run through the same lines: `blind` sees one constant relation text, `clip`
trains on self-pairs with the cross-modal terms only. Under one seed, one machine and one number of threads,
two runs on a CPU give the same weights.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from safetensors.torch import save_file
from torch import Tensor

from .artifact import Draft, write_artifact
from .backbone import Backbone, PictureInput, Preprocessor, TextInput, load_backbone, small_backbone
from .checkpoint import save_relation_vectors, save_relations
from .config import TrainConfig
from .encoder import Encoder, choose_device, load_pictures, relation_context
from .errors import InputError, TrainingError
from .metrics import retrieval_hits
from .model_card import model_card
from .network import ONE_HOT_SCALE, Network, NetworkConfig
from .objective import PairBatch, objective
from .prepared import Prepared
from .questions import EdgeTable, Queries, draw_claims, draw_queries
from .records import Similarity, Split
from .terminal import progress
from .validity import THRESHOLD, ValidityHead

VALIDATION_CANDIDATES = 21
"""As in the evaluation: one true partner among 21."""

MOST_CLAIMS = 20_000
"""Claims that the validity head is fitted to, at most."""

CACHE = "cache"
"""Folder of the draft for decoded pictures; removed before the checkpoint is sealed."""


@dataclass(frozen=True)
class Part:
    """The items of one split, ready for the network, with the edges among them by position."""

    text: TextInput
    pictures: PictureInput
    edges: EdgeTable


def train(config: TrainConfig) -> str:
    """Run the stage and return its closing summary.

    Raises:
        InputError: the prepared data or the backbone cannot be used.
        TrainingError: the loss is no longer finite.
    """
    started = time.monotonic()
    prepared = Prepared.open(config.prepared)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    # Without this, threads add up the gradients of gathered rows in whatever order they finish.
    torch.use_deterministic_algorithms(device.type == "cpu")
    rng = np.random.default_rng(config.seed)
    backbone, preprocessor = _backbone(config, prepared)
    gain = config.attention_gain or (2.0 if _from_scratch(config) else 1.0)
    network = Network(_network_config(config, backbone), backbone, gain).to(device)

    with write_artifact(config.out, "checkpoint", config, {"prepared": prepared.manifest.digest}) as draft:
        parts = {
            split: _part(prepared, split, preprocessor, draft.path)
            for split in (Split.TRAIN, Split.VALIDATION)
        }
        best, metrics = _optimise(network, preprocessor, prepared, parts, config, device, rng)
        network.load_state_dict(best)
        encoder = Encoder(network.eval(), preprocessor, prepared.relations, device)
        validity, accuracy = _fit_validity(encoder, parts, config.seed)
        metrics |= {"validation_validity_accuracy": accuracy, "seconds": round(time.monotonic() - started, 1)}
        shutil.rmtree(draft.path / CACHE)
        _save(draft, network, preprocessor, encoder, prepared, config, metrics)
        validity.save(draft.path)
    return (
        f"Trained {config.objective} for {metrics['steps']} steps in {metrics['seconds']:.0f} s: validation Hit@5 "
        f"{metrics['validation_hit_at_5']:.3f}; checkpoint in {config.out}"
    )


def _backbone(config: TrainConfig, prepared: Prepared) -> tuple[Backbone, Preprocessor]:
    if not _from_scratch(config):
        return load_backbone(config.backbone)
    texts = [prepared.items[row].text for row in prepared.rows(Split.TRAIN)]
    texts += [relation.description for relation in prepared.relations]
    preprocessor = Preprocessor.train(texts, config.small)
    return small_backbone(config.small, preprocessor), preprocessor


def _from_scratch(config: TrainConfig) -> bool:
    return config.backbone == "small"


def _network_config(config: TrainConfig, backbone: Backbone) -> NetworkConfig:
    clip = config.objective == "clip"
    return NetworkConfig(
        objective=config.objective,
        beta=1.0 if clip else config.beta,
        summary_scale=ONE_HOT_SCALE if clip else config.summary_scale,
        backbone=backbone.config,
    )


def _part(prepared: Prepared, split: Split, preprocessor: Preprocessor, folder: Path) -> Part:
    rows = prepared.rows(split)
    edges = [edge for edge in prepared.edges if edge.split == split]
    if not edges:
        raise InputError(
            f"{prepared.path} has no {split} pairs. Give it more data or loosen the filters of `rcml prepare`."
        )
    items = [prepared.items[row] for row in rows]
    (folder / CACHE).mkdir(exist_ok=True)
    return Part(
        text=preprocessor.tokenize([item.text for item in items]),
        pictures=load_pictures(
            preprocessor, [prepared.path / item.picture for item in items], folder / CACHE / f"{split}.npy"
        ),
        edges=EdgeTable.of(
            edges,
            {item.item_id: row for row, item in enumerate(items)},
            {relation.relation_id: row for row, relation in enumerate(prepared.relations)},
        ),
    )


def _optimise(
    network: Network,
    preprocessor: Preprocessor,
    prepared: Prepared,
    parts: dict[Split, Part],
    config: TrainConfig,
    device: torch.device,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The loop. Returns the weights of the best validation and what was measured on the way."""
    part = parts[Split.TRAIN]
    related = _related(part)
    pairs = _training_pairs(part, config)
    queries = draw_queries(
        parts[Split.VALIDATION].edges,
        VALIDATION_CANDIDATES,
        most=4000,
        rng=np.random.default_rng(config.seed),
    )
    optimizer = _optimizer(network, config)
    peak = config.learning_rate or (1e-3 if _from_scratch(config) else 5e-5)
    best_hit, best_step, best_state = -1.0, 0, _state(network)
    losses: list[float] = []
    history: list[dict[str, float]] = []
    batches = _batches(pairs, config, rng)
    generator = torch.Generator(device).manual_seed(config.seed)

    for step in progress(range(1, config.steps + 1), f"training {config.objective}", config.steps):
        batch = next(batches)
        items = np.unique(np.concatenate([batch.a, batch.b]))
        rate = peak * _schedule(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]

        rows = torch.from_numpy(items)
        text = part.text.take(rows).to(device)
        pictures = preprocessor.normalise(part.pictures.take(rows).to(device))
        if config.augment:
            pictures = PictureInput(shift_and_mirror(pictures.pixels, generator), pictures.grid)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            context = relation_context(network, preprocessor, prepared.relations, device)
            text_vectors = network.text_vectors(text, context)
            image_vectors = network.image_vectors(pictures, context)
        loss = objective(
            text_vectors,
            image_vectors,
            _pair_batch(pairs, items, related, device),
            config.temperature,
            0.0 if config.objective == "clip" else config.intra_modal_weight,
        )
        losses.append(loss.item())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
        if not math.isfinite(losses[-1]) or not length.isfinite():
            ids = [prepared.items[prepared.rows(Split.TRAIN)[row]].item_id for row in items[:8]]
            raise TrainingError(
                f"The loss became {losses[-1]} and its gradient {length:.3g} at step {step} "
                f"(items {', '.join(ids)}, ...). "
                "Lower --learning-rate or raise --temperature."
            )
        optimizer.step()

        if step % config.validate_every == 0 or step == config.steps:
            hit = _validate(network, preprocessor, prepared, parts[Split.VALIDATION], queries, device)
            recent = losses[-config.validate_every :]
            history.append({"step": step, "loss": sum(recent) / len(recent), "validation_hit_at_5": hit})
            if hit > best_hit:
                best_hit, best_step, best_state = hit, step, _state(network)
            elif step - best_step >= config.patience * config.validate_every:
                break
    return best_state, {
        "objective": config.objective,
        "steps": step,
        "best_step": best_step,
        "validation_hit_at_5": best_hit,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": device.type,
        "history": history,
    }


def _training_pairs(part: Part, config: TrainConfig) -> EdgeTable:
    """P: every edge, and every item with itself under the intra-sample relation, which is relation 0."""
    every = np.arange(len(part.pictures))
    intra = EdgeTable(every, every, np.zeros_like(every))
    if config.objective == "clip":
        return intra
    edges = part.edges
    return EdgeTable(
        np.concatenate([edges.a, intra.a]),
        np.concatenate([edges.b, intra.b]),
        np.concatenate([edges.relation, intra.relation]),
    )


def _batches(pairs: EdgeTable, config: TrainConfig, rng: np.random.Generator) -> Iterator[EdgeTable]:
    """Endless batches; each epoch is a new order of all pairs, its incomplete last batch left out."""
    size = min(config.batch_size, len(pairs))
    while True:
        order = rng.permutation(len(pairs))
        for start in range(0, len(pairs) - size + 1, size):
            yield pairs.take(order[start : start + size])


def _related(part: Part) -> sp.csr_array:
    """Whether two items share a relation anywhere in the training graph, or are the same item."""
    count = len(part.pictures)
    a = np.concatenate([part.edges.a, part.edges.b, np.arange(count)])
    b = np.concatenate([part.edges.b, part.edges.a, np.arange(count)])
    return sp.csr_array((np.ones(len(a), dtype=np.int32), (a, b)), shape=(count, count))


def _pair_batch(pairs: EdgeTable, items: ndarray, related: sp.csr_array, device: torch.device) -> PairBatch:
    """All pairs among the batch's `items`, edges in both orders, self-pairs once.

    The pairs that were drawn brought these items in; any other edge between two of them is a positive that
    costs no further encoding.
    """
    position = np.full(related.shape[0], -1)
    position[items] = np.arange(len(items))
    a, b = position[pairs.a], position[pairs.b]
    inside = (a >= 0) & (b >= 0)
    a, b, relation = a[inside], b[inside], pairs.relation[inside]
    inter = a != b
    anchor = np.concatenate([a, b[inter]])
    positive = np.concatenate([b, a[inter]])
    relations = np.concatenate([relation, relation[inter]])
    among = related[items][:, items].toarray() > 0
    tensors = [torch.from_numpy(array).to(device) for array in (anchor, positive, relations, among)]
    return PairBatch(*tensors, count=len(anchor), inter_count=2 * int(inter.sum()))


def _optimizer(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW in three groups: matrices, decayed; vectors; and the attention's four matrices.

    The four start near the identity. Adam moves every entry of a matrix by about the rate, in one direction
    at first, which adds rate x dim to its largest singular value at each step: at the rate of a network made
    from scratch, that drowns the identity in tens of steps and all vectors fall together.
    """
    attention = set(network.attention.parameters())
    others = [parameter for parameter in network.parameters() if parameter not in attention]
    share = config.attention_rate or (0.1 if _from_scratch(config) else 1.0)
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay, "share": 1.0},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "share": 1.0},
        {"params": list(network.attention.parameters()), "weight_decay": 0.0, "share": share},
    ]
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), fused=True)


def _schedule(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine decay to 0; a share of the peak rate."""
    warmup = max(1, round(config.steps * config.warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def shift_and_mirror(
    pixels: Float[Tensor, "batch 3 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Each picture moved by up to 6 %, zoomed by up to 10 % and half the time mirrored."""
    count, device = len(pixels), pixels.device

    def uniform(reach: float) -> Float[Tensor, "batch"]:
        return (torch.rand(count, generator=generator, device=device) * 2 - 1) * reach

    zoom = 1 + uniform(0.1)
    mirror = torch.where(torch.rand(count, generator=generator, device=device) < 0.5, -1.0, 1.0)
    move = torch.zeros(count, 2, 3, device=device)
    move[:, 0, 0], move[:, 1, 1] = zoom * mirror, zoom
    move[:, 0, 2], move[:, 1, 2] = uniform(0.12), uniform(0.12)
    grid = F.affine_grid(move, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _validate(
    network: Network,
    preprocessor: Preprocessor,
    prepared: Prepared,
    part: Part,
    queries: Queries,
    device: torch.device,
) -> float:
    network.eval()
    encoding = Encoder(network, preprocessor, prepared.relations, device).encode_inputs(
        part.text, part.pictures
    )
    network.train()
    return float(retrieval_hits(encoding, queries, Similarity.AVG).mean())


def _fit_validity(encoder: Encoder, parts: dict[Split, Part], seed: int) -> tuple[ValidityHead, float]:
    """Fit the head on the frozen vectors of the training part; its accuracy is that on the validation part."""
    rng = np.random.default_rng(seed)
    known = np.array([row for row, relation in enumerate(encoder.relations) if not relation.intra])
    judged = {}
    for split, part in parts.items():
        claims = draw_claims(part.edges, known, MOST_CLAIMS, rng)
        encoding = encoder.encode_inputs(part.text, part.pictures)
        judged[split] = (claims.vectors(encoding, encoder.relation_vectors), claims.valid)
    head = ValidityHead.fit(*judged[Split.TRAIN], seed)
    pairs, valid = judged[Split.VALIDATION]
    return head, float(((head.probability(pairs) >= THRESHOLD) == valid).mean())


def _state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _save(
    draft: Draft,
    network: Network,
    preprocessor: Preprocessor,
    encoder: Encoder,
    prepared: Prepared,
    config: TrainConfig,
    metrics: dict[str, Any],
) -> None:
    folder = draft.path
    save_file(_state(network), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "network.json").write_text(network.config.model_dump_json(indent=2) + "\n")
    preprocessor.save(folder)
    save_relations(folder, prepared.relations)
    save_relation_vectors(folder, encoder.relation_vectors)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(config, metrics, prepared), encoding="utf-8")
    draft.counts.update(
        parameters=metrics["parameters"], relations=len(prepared.relations), dim=network.backbone.dim
    )
