"""`rcml train`: trains a network on prepared data and writes a checkpoint.

The same code trains the networks that the evaluation compares with RCML. The unconditioned ablation (`blind`) gets one
constant text for all relations. The CLIP baseline (`clip`) trains on self-pairs with only the cross-modal terms, and
`siglip`, `unicl` and `declip` train the same network with other losses (`model/training/objectives`).

On a CPU, two runs with the same seed, machine and number of threads give the same weights, and so does a run that was
killed and resumed. Under `torchrun`, every process runs this code, but only the first rank writes files and prints
messages.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray

from model.artifact import write_artifact
from model.checkpoint.training_metrics import TrainingMetrics
from model.config import UNCONDITIONED, TrainConfig
from model.console import progress_bar, say
from model.data.joined_data import open_prepared
from model.data.prepared_data import Prepared
from model.embeddings.encoding import EQUAL_SHARE
from model.encoder.encoder import Encoder
from model.errors import InputError, TrainingError
from model.network.backbones import Backbone, DualEncoderBackbone
from model.network.inference.precision import cuda_computes_in_bf16
from model.network.load_backbone import load_backbone, small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.network.relation_attention import ONE_HOT_SCALE
from model.records import Split

from .batches import Batches, Part
from .distributed import ProcessGroup, join_process_group
from .finetuning import select_trainable
from .initial_values import logit_scale_for, measure_centres
from .objectives.batch_loss import BatchLoss
from .objectives.choice import make_loss
from .optimizer import make_optimizer
from .outcome.conditioning_check import conditioning_warnings
from .outcome.model_card import model_card
from .outcome.validity_fit import fit_validity
from .part_inputs import PartInputs
from .run_state import Run, TrainingState, follow_run, open_run
from .steps.compilation import Compilation, compiles
from .steps.gradients import Gradients
from .steps.training_steps import TrainingSteps
from .tracking import open_logs, require_trackers
from .validation_queries import TEXT_SHARES, Validation, best_text_share, make_validation


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

    `merge` is called after training and merges LoRA adapters, if any.
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
    optimizer: torch.optim.Optimizer
    steps: TrainingSteps
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
        config.micro_batch,
        _trains_in_bf16(config, group),
        config.seed,
        inputs.frozen,
    )
    optimizer = make_optimizer(network, loss, config)
    compilation = Compilation(network, compiles(config.compile, group.device, config.steps))
    astray = partial(_astray, prepared, run)
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
        optimizer=optimizer,
        steps=TrainingSteps(config, network, loss, gradients, optimizer, compilation, astray),
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
            training.steps.take(step, queue)
            validating = step % config.validate_every == 0 or step == config.steps
            saving = step % config.save_every == 0 or step == config.steps
            # Weights are neither validated nor saved before the figures of their step have been checked.
            for read, figures in training.steps.read(state, unread=0 if validating or saving else 1):
                log(read, figures)
                advance(f"loss {state.losses[-1]:.3f}  {state.pairs_per_second:,.0f} pairs/s")
            if validating:
                log(step, _validate(training, state))
            if group.first and (saving or state.stopped):
                run.save(state, training.network, training.loss, training.optimizer)
            if state.stopped:
                break


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
    validity, calibration, accuracy = fit_validity(
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


def _trains_in_bf16(config: TrainConfig, group: ProcessGroup) -> bool:
    return config.precision == "bf16" or (config.precision == "auto" and cuda_computes_in_bf16(group.device))


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


def _astray(
    prepared: Prepared, run: Run, step: int, items: Int[ndarray, " items"], loss: float, norm: float
) -> TrainingError:
    """Create the error for a loss or gradient that is not finite, and write the batch's item IDs to a file."""
    rows = prepared.rows(Split.TRAIN)
    ids = [prepared.items[rows[item]].item_id for item in items]
    listed = run.folder / "not-finite.json"
    listed.write_text(json.dumps({"step": step, "items": ids}, indent=2) + "\n")
    return TrainingError(
        f"Training diverged at step {step}: the loss is {loss} and the gradient norm is {norm:.3g}. The batch contains "
        f"the items {', '.join(ids[:8])}, ...; all {len(ids)} are listed in {listed}. Lower --learning-rate or raise "
        "--temperature."
    )
