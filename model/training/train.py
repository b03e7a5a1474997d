"""`rcml train`: trains a network on prepared data and writes a checkpoint.

The same code trains the networks that the evaluation compares with RCML. The unconditioned ablation (`blind`) gets one
constant text for all relations. The CLIP baseline (`clip`) trains on self-pairs with only the cross-modal terms, and
`siglip`, `unicl` and `declip` train the same network with other losses (`model/training/objectives`).

On a CPU, two runs with the same seed, machine and number of threads give the same weights, and so does a run that was
killed and resumed. Under `torchrun`, every process runs this code, but only the first rank writes files and prints
messages.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import nn

from model.artifact import write_artifact
from model.checkpoint.calibration import Calibration
from model.checkpoint.training_metrics import TrainingMetrics
from model.checkpoint.validity import VALIDITY_THRESHOLD, ValidityHead
from model.config import UNCONDITIONED, TrainConfig
from model.console import progress_bar, say
from model.data.joined_data import open_prepared
from model.data.prepared_data import Prepared
from model.embeddings.encoding import EQUAL_SHARE, Encoding
from model.encoder.encoder import Encoder
from model.errors import InputError, TrainingError
from model.evaluation.metrics import relation_type_scores
from model.evaluation.sampling import LabelledPairs, sample_labelled_pairs
from model.network.backbones import Backbone, DualEncoderBackbone
from model.network.load_backbone import load_backbone, small_backbone
from model.network.network import Network, NetworkConfig
from model.network.precision import cuda_computes_in_bf16
from model.network.processor import Preprocessor
from model.network.relation_attention import ONE_HOT_SCALE
from model.records import Split
from model.similarity import Similarity

from .batches import Batch, Batches, Part, Queue
from .conditioning_check import conditioning_warnings
from .distributed import ProcessGroup, join_process_group
from .finetuning import select_trainable
from .gradients import Gradients
from .initial_values import logit_scale_for, measure_centres
from .model_card import model_card
from .objectives.batch_loss import BatchLoss
from .objectives.choice import make_loss
from .optimizer import make_optimizer, peak_rate, schedule
from .part_inputs import PartInputs
from .run_state import Run, TrainingState, follow_run, open_run
from .tracking import open_logs, require_trackers
from .validation_queries import TEXT_SHARES, Validation, best_text_share, make_validation
from .validity_fit import fit_validity_head

MAX_FITTED_CLAIMS = 20_000
"""Maximum number of claims or edges that the validity head or a calibration map is fitted to."""


def train(config: TrainConfig) -> str:
    """Train a network and return the closing summary, which is empty on all ranks except the first.

    Raises:
        InputError: the prepared data, the backbone or an option cannot be used; an option requires a package that is
            not installed; an earlier run was interrupted and `--resume` is not given; or `--resume` is given and the
            run is finished.
        MismatchError: `--resume` is given, but the options or the data differ from those of the interrupted run.
        TrainingError: the loss or its gradient is not finite.
    """
    require_trackers(config)
    prepared = open_prepared(config.prepared)
    prepared.require_pictures()
    if not prepared.rows(Split.TRAIN):
        raise InputError(
            f"{prepared.path} has no training item with a picture, and training needs pictures. Give them to "
            "`rcml prepare`."
        )
    with join_process_group(config.device) as group:
        run = open_run(config, prepared.manifest.digest) if group.first else follow_run(config)
        with run as opened:
            group.wait()
            return _train(config, prepared, group, opened)


def _train(config: TrainConfig, prepared: Prepared, group: ProcessGroup, run: Run) -> str:
    torch.manual_seed(config.seed)
    # On a CPU, the backward pass of indexing would otherwise sum gradients in an order that varies between runs.
    torch.use_deterministic_algorithms(group.device.type == "cpu")
    if group.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    training = _set_up(config, prepared, group, run)
    state = run.load(training.network, training.loss, training.optimizer) or TrainingState()
    _take_steps(training, state)
    if not group.first:
        return ""
    return _write_checkpoint(training, state)


@dataclass(frozen=True)
class _Training:
    """Network, training and validation data, and the objects that update the weights.

    `weights` are the trainable parameters of the network and the loss. `merge` is called after training and
    merges LoRA adapters, if any.
    """

    config: TrainConfig
    prepared: Prepared
    group: ProcessGroup
    run: Run
    network: Network
    encoder: Encoder
    part: Part
    validation: Validation
    batches: Batches
    loss: BatchLoss
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    weights: Sequence[nn.Parameter]
    merge: Callable[[], None]

    @property
    def text_shares(self) -> Sequence[float]:
        """Weights of the text vector in the average view that may be chosen."""
        if self.config.text_share is not None:
            return (self.config.text_share,)
        return (EQUAL_SHARE,) if self.config.conditioning == "paper" else TEXT_SHARES


def _set_up(config: TrainConfig, prepared: Prepared, group: ProcessGroup, run: Run) -> _Training:
    """Create the network and load the data.

    The order of the calls determines the random numbers that each of them draws.
    """
    backbone, preprocessor = _backbone(config, prepared)
    network = Network(_network_config(config, backbone), backbone)
    encoder = Encoder(network, preprocessor, prepared.relations, group.device)
    measure_centres(encoder, prepared, group)
    inputs = PartInputs(config, prepared, encoder, group, run.inputs)
    rng = np.random.default_rng(config.seed)
    part = inputs.part(prepared.rows(Split.TRAIN), Split.TRAIN)
    validation = make_validation(prepared, inputs, rng)
    _scale_attention(config, encoder, part, group)
    merge = select_trainable(network, config)
    loss = make_loss(config, len(part), backbone.dim).to(group.device)
    gradients = Gradients(
        network,
        preprocessor,
        prepared.relations,
        group,
        loss,
        micro_batch=config.micro_batch,
        bf16=config.precision == "bf16"
        or (config.precision == "auto" and cuda_computes_in_bf16(group.device)),
        seed=config.seed,
        frozen_towers=inputs.frozen,
    )
    return _Training(
        config=config,
        prepared=prepared,
        group=group,
        run=run,
        network=network,
        encoder=encoder,
        part=part,
        validation=validation,
        batches=Batches(
            part if config.inter_edges else replace(part, edges=part.edges.take(np.arange(0))),
            config.objective,
            config.batch_size,
            config.augment and not inputs.frozen,
            config.seed,
            group,
            loss.views,
        ),
        loss=loss,
        gradients=gradients,
        optimizer=make_optimizer(network, loss, config),
        weights=[weight for part in (network, loss) for weight in part.parameters() if weight.requires_grad],
        merge=merge,
    )


def _take_steps(training: _Training, state: TrainingState) -> None:
    """Train from the step after `state.step` to the last step, or until validation stops improving."""
    config, group, run = training.config, training.group, training.run
    steps = range(state.step + 1, 1 if state.stopped else config.steps + 1)
    with (
        training.batches.ahead(steps, config.workers) as queue,
        open_logs(config, run.tensorboard, state.step + 1) if group.first else nullcontext(_no_log) as log,
        progress_bar(f"training {config.objective}", config.steps, state.step)
        if group.first
        else nullcontext(_no_bar) as advance,
    ):
        for step in steps:
            log(step, _take_step(training, state, step, queue))
            advance(f"loss {state.losses[-1]:.3f}  {state.pairs_per_second:,.0f} pairs/s")
            if step % config.validate_every == 0 or step == config.steps:
                log(step, _validate(training, state))
            if group.first and (step % config.save_every == 0 or step == config.steps or state.stopped):
                run.save(state, training.network, training.loss, training.optimizer)
            if state.stopped:
                break


def _take_step(training: _Training, state: TrainingState, step: int, queue: Queue) -> dict[str, float]:
    """Train on one batch and return the metrics to log.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    config, network, optimizer = training.config, training.network, training.optimizer
    network.train()
    started = time.perf_counter()
    batch = queue.take()
    waited = time.perf_counter() - started
    rate = peak_rate(config) * schedule(step, config)
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate * parameters["share"]
    optimizer.zero_grad(set_to_none=True)
    loss = training.gradients.of(batch, step)
    norm = float(nn.utils.clip_grad_norm_(training.weights, config.max_gradient_norm))
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise _astray(training.prepared, batch, training.run, step, loss, norm)
    optimizer.step()
    took = time.perf_counter() - started
    state.count(step, loss, batch.pairs.count, took, waited)
    return {
        "loss": loss,
        "rate": rate,
        "gradient_norm": norm,
        "pairs_per_second": batch.pairs.count / took,
    }


def _validate(training: _Training, state: TrainingState) -> dict[str, float]:
    """Validate on the first rank, send the result to all ranks, and return the metrics to log."""
    config, group = training.config, training.group
    hit = group.total(_validation_hit(training) if group.first else 0.0)
    state.validated(hit, config.patience * config.validate_every)
    if group.first:
        if state.best_step == state.step:
            training.run.save_best(state.step, training.network)
        say(f"step {state.step:,} of {config.steps:,}: {state.in_words()}")
    return {"validation_hit_at_5": hit, "data_wait_share": state.data_wait_share}


def _validation_hit(training: _Training) -> float:
    """Measure Hit@5 by AVG similarity on the validation items, with the best weight of the text vector."""
    training.network.eval()
    part = training.validation.part
    encoding = training.encoder.encode_inputs(part.text, part.pictures)
    return best_text_share(encoding, training.validation.queries, training.text_shares)[1]


def _write_checkpoint(training: _Training, state: TrainingState) -> str:
    """Load the selected weights, fit the validity head, write the checkpoint and return the closing summary."""
    config, group, network = training.config, training.group, training.network
    if config.keep == "best":
        training.run.load_best(state.best_step, network)
    training.merge()
    network.eval()
    validation = training.validation.part
    encoding = training.encoder.encode_inputs(validation.text, validation.pictures)
    share, _ = best_text_share(encoding, training.validation.queries, training.text_shares)
    network.set_text_share(share)
    if config.objective == "rcml":
        known = training.encoder.relation_vectors
        entropy = training.encoder.attention_entropy(validation.text, validation.pictures)
        found = conditioning_warnings(encoding, training.encoder.relations, known)
        for warning in (*found, *entropy.warnings()):
            say(f"Warning: {warning}")
    parts = {Split.TRAIN: training.part, Split.VALIDATION: validation}
    encodings = {
        Split.TRAIN: training.encoder.encode_inputs(training.part.text, training.part.pictures),
        Split.VALIDATION: replace(encoding, text_share=share),
    }
    validity, calibration, accuracy = _fit_validity(
        training.encoder, parts, encodings, training.prepared.domain_of_relation, config.seed, group.device
    )
    hit = state.best_hit if config.keep == "best" else state.history[-1].validation_hit_at_5
    metrics = TrainingMetrics(
        objective=config.objective,
        steps=state.step,
        best_step=state.best_step,
        validation_hit_at_5=hit,
        validation_validity_accuracy=accuracy,
        parameters=sum(weight.numel() for weight in network.parameters()),
        device=group.device.type,
        ranks=group.size,
        seconds=round(state.seconds, 1),
        pairs_per_second=round(state.pairs_per_second, 1),
        data_wait_share=round(state.data_wait_share, 4),
        history=tuple(state.history),
    )
    with write_artifact(config.out, "checkpoint", config, training.prepared.digests) as draft:
        card = model_card(config, metrics, training.prepared)
        training.encoder.write(draft, validity, metrics, card, calibration)
    training.run.finish()
    return (
        f"Trained {config.objective} for {state.step} steps in {state.seconds:.0f} s: validation Hit@5 "
        f"{hit:.3f}. The checkpoint is in {config.out}."
    )


def _no_log(step: int, figures: Mapping[str, float]) -> None:
    """Log nothing; used on all ranks except the first."""


def _no_bar(figures: str) -> None:
    """Show nothing; used on all ranks except the first."""


def _backbone(config: TrainConfig, prepared: Prepared) -> tuple[Backbone, Preprocessor]:
    if not config.from_scratch:
        return load_backbone(config.backbone)
    texts = [prepared.items[row].text for row in prepared.rows(Split.TRAIN)]
    texts += [relation.description for relation in prepared.relations]
    preprocessor = Preprocessor.train(texts, config.small)
    return small_backbone(config.small, preprocessor), preprocessor


def _scale_attention(config: TrainConfig, encoder: Encoder, part: Part, group: ProcessGroup) -> None:
    """Set the initial scale of the attention, the same on all ranks."""
    network = encoder.network
    if network.config.conditioning == "paper":
        network.attention.scale(config.attention_gain or (2.0 if config.from_scratch else 1.0))
    elif config.attention_gain is not None:
        network.attention.scale(config.attention_gain)
    else:
        network.eval()
        measured = (
            logit_scale_for(network, encoder.preprocessor, encoder.relations, part, group.device)
            if group.first
            else 0.0
        )
        network.set_logit_scale(group.total(measured))


def _network_config(config: TrainConfig, backbone: Backbone) -> NetworkConfig:
    unconditioned = config.objective in UNCONDITIONED
    return NetworkConfig(
        objective=config.objective,
        beta=1.0 if unconditioned else config.beta,
        summary_scale=ONE_HOT_SCALE if unconditioned else config.summary_scale,
        # The baselines have only one inter-sample relation, or none, so there is nothing to centre.
        conditioning=config.conditioning if config.objective == "rcml" else "paper",
        normalise_tokens=isinstance(backbone, DualEncoderBackbone) and config.conditioning != "paper"
        if config.normalise_tokens is None
        else config.normalise_tokens,
        backbone=backbone.config,
    )


def _astray(prepared: Prepared, batch: Batch, run: Run, step: int, loss: float, norm: float) -> TrainingError:
    """Create the error for a loss or gradient that is not finite, and write the batch's item IDs to a file."""
    rows = prepared.rows(Split.TRAIN)
    ids = [prepared.items[rows[item]].item_id for item in batch.items]
    listed = run.folder / "not-finite.json"
    listed.write_text(json.dumps({"step": step, "items": ids}, indent=2) + "\n")
    return TrainingError(
        f"Training diverged at step {step}: the loss is {loss} and the gradient norm is {norm:.3g}. The batch contains "
        f"the items {', '.join(ids[:8])}, ...; all {len(ids)} are listed in {listed}. Lower --learning-rate or raise "
        "--temperature."
    )


def _fit_validity(
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
