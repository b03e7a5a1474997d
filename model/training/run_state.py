"""State of a training run on disk: the folder `OUT.run`, next to the folder of the checkpoint.

    OUT.run/
      run.json                  digest of the prepared data, and options; both must be unchanged for `--resume`;
                                whether the run is finished
      last.safetensors          complete state at the last save: weights, Adam's moments, step, history, and what only
                                the loss has (SigLIP's temperature and bias, DeCLIP's queue)
      best-STEP.safetensors     weights of the best validation so far; STEP is stored in last.safetensors
      tensorboard/              TensorBoard log
      inputs/                   decoded pictures or encoded tokens; removed at the end
      not-finite.json           items of the batch whose loss or gradient was not finite

Every state file is written under a temporary name, fsynced and renamed, so a kill at any moment leaves either the old
or the new state. All randomness depends only on the seed and the step, so no generator state is saved.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.artifact import refuse_loss
from model.checkpoint.training_metrics import ValidationFigures
from model.config import TrainConfig
from model.durable_files import lock_folder, share, storing, sync_path
from model.errors import InputError, MismatchError, RcmlError, TrainingError
from model.plain_file import damaged, decoding, plain_status, read_json

INCIDENTAL_OPTIONS = {
    *("prepared", "out", "device", "workers", "picture_cache", "decoded_pictures", "save_every", "track"),
    *("compile", "gradient_checkpointing"),
}
"""Options that a resumed run may change, because they do not change what the network learns.

The folder `prepared` may change, but not the digest of the data in it.
"""


class TrainingState(BaseModel):
    """Progress of a training run, without tensors: its counters, losses and validations."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    best_step: int = 0
    best_hit: float = -1.0
    losses: list[float] = Field([], description="losses of the steps since the last validation")
    history: list[ValidationFigures] = []
    pairs: int = 0
    seconds: float = 0.0
    waited: float = Field(0.0, description="part of `seconds` spent waiting for batches")
    stopped: bool = Field(
        False, description="true if training ended early because validation stopped improving"
    )

    @property
    def pairs_per_second(self) -> float:
        """Training speed in positive pairs per second."""
        return self.pairs / max(self.seconds, 1e-9)

    @property
    def data_wait_share(self) -> float:
        """Share of the training time spent waiting for batches."""
        return self.waited / max(self.seconds, 1e-9)

    def count(self, step: int, loss: float, pairs: int, seconds: float, waited: float) -> None:
        """Record a training step, which added `seconds` to the training time."""
        self.step = step
        self.losses.append(loss)
        self.pairs += pairs
        self.seconds += seconds
        self.waited += waited

    def validated(self, hit: float, patience: int) -> None:
        """Record a validation, and set `stopped` if the best validation is at least `patience` steps old."""
        loss = sum(self.losses) / len(self.losses)
        self.losses = []
        self.history.append(ValidationFigures(step=self.step, loss=loss, validation_hit_at_5=hit))
        if hit > self.best_hit:
            self.best_hit, self.best_step = hit, self.step
        self.stopped = self.step - self.best_step >= patience

    def in_words(self) -> str:
        """Format the loss, the last validation and the speed so far for the log."""
        latest = self.history[-1]
        return (
            f"training loss {latest.loss:.3f}, validation Hit@5 {latest.validation_hit_at_5:.3f}, "
            f"{self.pairs_per_second:,.0f} pairs/s, {self.data_wait_share:.1%} of the time waiting for data"
        )


class Run:
    """Folder of one training run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def inputs(self) -> Path:
        """Folder of the decoded pictures or encoded tokens, which exists only until the run is finished."""
        return self.folder / "inputs"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard log."""
        return self.folder / "tensorboard"

    def save(
        self, state: TrainingState, network: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Save the complete state, then delete all best weights except those of `state.best_step`."""
        weights = _weights(network, loss)
        tensors = {f"network.{name}": tensor for name, tensor in learnt(network).items()}
        tensors |= {f"loss.{name}": tensor for name, tensor in loss.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in _moments(weights, optimizer).items()}
        _write(self.folder / "last.safetensors", tensors, {"progress": state.model_dump_json()})
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._best(state.best_step):
                path.unlink()

    def load(
        self, network: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
    ) -> TrainingState | None:
        """Restore the last saved state and return its progress, or return None if no state was saved.

        Raises:
            ArtifactError: the state is not a plain file, or is damaged.
        """
        path = self.folder / "last.safetensors"
        try:
            tensors, metadata = _read(path)
        except FileNotFoundError:
            return None
        with decoding(path):
            state = TrainingState.model_validate_json(metadata["progress"])
        _fill(network, _under("network.", tensors))
        loss.load_state_dict(_under("loss.", tensors))
        _restore_moments(_weights(network, loss), optimizer, _under("optimizer.", tensors))
        return state

    def save_best(self, step: int, network: nn.Module) -> None:
        """Save the current weights as those of the best validation, at `step`."""
        _write(self._best(step), learnt(network), {})

    def load_best(self, step: int, network: nn.Module) -> None:
        """Restore the weights that `save_best` saved at `step`."""
        _fill(network, _read(self._best(step))[0])

    def finish(self) -> None:
        """Mark the run as finished and delete its pictures and best weights; the log and the last state remain."""
        record = _read_record(self.folder)
        _write_record(self.folder, {**record, "finished": True})
        for path in (*self.folder.glob("best-*.safetensors"), *self.folder.glob(".*.partial")):
            path.unlink()
        shutil.rmtree(self.inputs, ignore_errors=True)

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


@contextmanager
def open_run(config: TrainConfig, prepared: str) -> Iterator[Run]:
    """Open the run of `config` on the prepared data with the digest `prepared`, and lock it for this process.

    Raises:
        ArtifactError: another process uses the run, or writing `config.out` would lose something.
        InputError: an earlier run was interrupted and `--resume` is not given, or `--resume` is given and the run is
            finished.
        MismatchError: `--resume` is given, but the options or the data have changed.
    """
    refuse_loss(config.out, "checkpoint", config)
    folder = _folder(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, config.out.name):
        wanted = _identity(config, prepared)
        record = _read_record(folder)
        if config.resume and record:
            if record["finished"]:
                raise InputError(
                    f"The run in {folder} is finished. Omit --resume to replace it with a new run."
                )
            _compare(record["of"], wanted, folder)
        elif record and not record["finished"] and any(folder.glob("*.safetensors")):
            raise InputError(
                f"An earlier run was interrupted, and its state is in {folder}. Continue it with --resume, "
                "or delete this folder to start over."
            )
        else:
            _clear(folder)
            _write_record(folder, {"of": wanted, "finished": False})
        run = Run(folder)
        try:
            yield run
        except TrainingError:
            run.finish()  # a resumed run would only fail again
            raise
        except RcmlError:
            if not any(folder.glob("*.safetensors")):
                shutil.rmtree(folder)
            raise


@contextmanager
def follow_run(config: TrainConfig) -> Iterator[Run]:
    """Open the run of `config` on a rank other than the first, without locking it."""
    yield Run(_folder(config.out))


def can_resume(config: TrainConfig, prepared: str) -> bool:
    """Return whether an earlier run with these options, on the prepared data with this digest, was interrupted."""
    record = _read_record(_folder(config.out))
    return bool(record) and not record["finished"] and record["of"] == _identity(config, prepared)


def discard_run(out: Path) -> None:
    """Delete the run of the checkpoint `out` if it exists.

    Raises:
        ArtifactError: another process uses the run.
    """
    folder = _folder(out)
    if folder.exists():
        with lock_folder(folder, out.name):
            shutil.rmtree(folder)


def learnt(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training changes; a resumed run loads the others from the backbone again."""
    return {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.run").absolute()


def _identity(config: TrainConfig, prepared: str) -> dict[str, Any]:
    """Return the options that must be unchanged for `--resume`, and the digest of the prepared data."""
    return {"prepared": prepared, **json.loads(config.model_dump_json(exclude=INCIDENTAL_OPTIONS))}


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {}
    match found:
        case {"of": dict(), "finished": bool()}:
            record: dict[str, Any] = found
            return record
    raise damaged(path, "it does not describe a training run")


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    aside = folder / ".run.json.partial"
    with storing(folder):
        aside.write_text(json.dumps(record, indent=2) + "\n")
        _settle(aside, folder / "run.json")


def _compare(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    if unknown := sorted(found.keys() ^ wanted.keys()):
        raise MismatchError(
            f"The interrupted run in {folder} cannot be resumed, because a version of rcml with other options "
            f"({', '.join(unknown)}) started it. Resume it with that version, or delete this folder to start over."
        )
    for name in sorted(wanted):
        if found[name] != wanted[name]:
            what = "the digest of the prepared data" if name == "prepared" else f"--{name.replace('_', '-')}"
            raise MismatchError(
                f"The interrupted run in {folder} cannot be resumed, because {what} changed from {found[name]!r} "
                f"to {wanted[name]!r}. Restore the old value, or delete this folder to start over."
            )


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _weights(network: nn.Module, loss: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters by name; those of the loss begin with `loss.`."""
    return {
        **dict(network.named_parameters()),
        **{f"loss.{name}": weight for name, weight in loss.named_parameters()},
    }


def _moments(weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}.{name}": value
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }


def _restore_moments(
    weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    for full, tensor in tensors.items():
        key, name = full.split(".", 1)
        optimizer.state[weights[name]][key] = tensor.to(weights[name].device)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            weights[name].copy_(tensor)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    with storing(path.parent):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside, metadata)
        _settle(aside, path)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Read the tensors and the metadata of a state file.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it is not a plain file, or is damaged.
    """
    plain_status(path, path.parent)
    with decoding(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors, file.metadata() or {}


def _settle(aside: Path, path: Path) -> None:
    share(aside)
    sync_path(aside)
    aside.rename(path)
    sync_path(path.parent)
