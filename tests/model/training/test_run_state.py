"""Tests of interrupted runs: a killed run resumes from its last save and ends with the same weights."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from model.artifact import open_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.config import Objective, TrainConfig
from model.errors import ArtifactError, InputError, MismatchError
from model.training.optimizer import schedule
from model.training.run_state import Run, TrainingState, can_resume, discard_run, open_run
from model.training.train import train
from tests.model.planted import tiny_training

ROOT = Path(__file__).parents[3]
FORKING = """
import os, signal, sys
from pathlib import Path
import torch
from model.training import train as trainer
from model.training.steps import training_steps
from model.config import TrainConfig

torch.set_num_threads(1)
schedule = training_steps.schedule
for line in sys.stdin:
    options, resume, last = line.split()
    child = os.fork()
    if not child:
        def schedule_until(step, *others):
            if step > int(last):
                signal.pause()  # until it is killed
            return schedule(step, *others)

        training_steps.schedule = schedule_until
        config = TrainConfig.model_validate_json(Path(options).read_text())
        status = 1
        try:
            trainer.train(config.model_copy(update={"resume": resume == "True"}))
            status = 0
        finally:
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Script that forks one process per training run, because importing torch takes longer than the training."""


STATES_OF_LOSS: dict[Objective, set[str]] = {
    "siglip": {"log_temperature", "bias"},
    "declip": {"queue.vectors", "queue.items"},
}


@dataclass(frozen=True)
class Training:
    """Training run in a separate process."""

    process: int
    told: IO[str]
    unfinished: set[int]
    """Processes for which `wait` has not returned, including this one."""

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)

    def wait(self) -> int:
        """Return the exit status, which is negative if the process was killed."""
        status = int(self.told.readline())
        self.unfinished.remove(self.process)
        return status


Start = Callable[..., Training]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Yield a function that starts a run; the run pauses after step `last`, so it cannot end before it is killed."""
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        asked, told = forking.stdin, forking.stdout
        unfinished: set[int] = set()

        def start(config: TrainConfig, resume: bool, last: int) -> Training:
            options = config.out.with_suffix(".json")
            options.write_text(config.model_dump_json())
            asked.write(f"{options} {resume} {last}\n")
            asked.flush()
            unfinished.add(process := int(told.readline()))
            return Training(process, told, unfinished)

        yield start
        asked.close()
        for process in unfinished:  # a failed test leaves its run paused
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def saved_step(config: TrainConfig) -> int:
    """Return the step of the last saved state, or 0 if no state was saved."""
    path = config.out.with_name(f"{config.out.name}.run") / "last.safetensors"
    if not path.is_file():
        return 0
    # With framework "pt", the file would be opened twice, and the run may replace it in between.
    with safe_open(path, framework="numpy") as file:
        return TrainingState.model_validate_json(file.metadata()["progress"]).step


def kill_after(training: Training, config: TrainConfig, step: int, delay: float) -> None:
    """Send SIGKILL `delay` seconds after the state of `step` was saved."""
    while saved_step(config) < step:
        time.sleep(0.002)
    time.sleep(delay)
    training.kill()
    assert training.wait() == -signal.SIGKILL, "The run ended before it was killed."


def endure(start: Start, prepared: Path, folder: Path, steps: int, kills: int, seed: int) -> None:
    """Kill and resume one run, complete another one without interruption, and compare their results."""
    rng = random.Random(seed)
    options: dict[str, Any] = {
        "steps": steps, "validate_every": 4, "save_every": 1, "patience": 99, "learning_rate": 1e-3, "batch_size": 48,
        "conditioning": "centred+bias", "normalise_tokens": True,
    }  # fmt: skip
    calm, stormy = (tiny_training(prepared, folder / name, **options) for name in ("calm", "stormy"))
    # This run uses a forked process too, because the number of threads affects the last bits.
    assert start(calm, False, steps).wait() == 0
    for number, step in enumerate(sorted(rng.sample(range(1, steps - 3), kills))):
        step = max(step, saved_step(stormy) + 1)
        kill_after(start(stormy, number > 0, step + 2), stormy, step, rng.uniform(0.0, 0.03))
        assert not stormy.out.exists()
    assert start(stormy, True, steps).wait() == 0
    for name in ("model.safetensors", "relations.safetensors", "validity.safetensors"):
        expected, found = (load_file(config.out / name) for config in (calm, stormy))
        assert expected.keys() == found.keys()
        assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    histories = [Checkpoint.open(config.out).metrics.history for config in (calm, stormy)]
    assert histories[0] == histories[1]


def test_killed_and_resumed_run_ends_with_weights_of_uninterrupted_run(
    start: Start, prepared: Path, tmp_path: Path
) -> None:
    endure(start, prepared, tmp_path, steps=24, kills=2, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_kills_and_resumes_do_not_change_weights(start: Start, prepared: Path, tmp_path: Path) -> None:
    endure(start, prepared, tmp_path, steps=120, kills=10, seed=1)


@pytest.fixture
def interrupted(prepared: Path, tmp_path: Path) -> TrainConfig:
    """Return the options of a run that Ctrl-C interrupted at step 4 of 6."""
    config = tiny_training(prepared, tmp_path / "out", steps=6, validate_every=2, save_every=1)

    def stop(step: int, *_: object) -> float:
        if step == 4:
            raise KeyboardInterrupt
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.steps.training_steps.schedule", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    return config


def test_run_of_a_version_with_other_options_is_not_resumed(interrupted: TrainConfig) -> None:
    record = interrupted.out.with_name(f"{interrupted.out.name}.run") / "run.json"
    content = json.loads(record.read_text())
    del content["of"]["normalise_tokens"]
    record.write_text(json.dumps(content))
    with pytest.raises(
        MismatchError, match=r"other options \(normalise_tokens\) started it. Resume it with that"
    ):
        train(interrupted.model_copy(update={"resume": True}))


@pytest.mark.parametrize("objective", ["siglip", "declip"])
def test_resumed_run_continues_with_state_of_loss(
    objective: Objective, prepared: Path, tmp_path: Path
) -> None:
    # SigLIP's loss has trained parameters, and DeCLIP's has a queue.
    options: dict[str, Any] = {
        "objective": objective, "steps": 8, "validate_every": 4, "save_every": 1, "batch_size": 8,
        "learning_rate": 1e-2,
    }  # fmt: skip
    calm, stormy = (tiny_training(prepared, tmp_path / name, **options) for name in ("calm", "stormy"))
    train(calm)

    def stop(step: int, config: TrainConfig) -> float:
        if step == 6:
            raise KeyboardInterrupt
        return schedule(step, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.steps.training_steps.schedule", stop)
        with pytest.raises(KeyboardInterrupt):
            train(stormy)
    train(resumed(stormy))
    expected, found = (
        load_file(tmp_path / f"{name}.run" / "last.safetensors") for name in ("calm", "stormy")
    )
    assert expected.keys() == found.keys() >= {f"loss.{name}" for name in STATES_OF_LOSS[objective]}
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []


def resumed(config: TrainConfig, **changed: Any) -> TrainConfig:
    return config.model_copy(update={"resume": True, **changed})


def test_interrupted_run_leaves_no_checkpoint_and_is_not_overwritten(interrupted: TrainConfig) -> None:
    with pytest.raises(ArtifactError, match="There is no checkpoint at"):
        Checkpoint.open(interrupted.out)
    with pytest.raises(InputError, match=r"was interrupted.*out\.run\. Continue it with --resume, or delete"):
        train(interrupted)
    assert saved_step(interrupted) == 3


def test_resumed_run_starts_after_last_saved_step(interrupted: TrainConfig) -> None:
    steps: list[int] = []

    def remember(step: int, *_: object) -> float:
        steps.append(step)
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.steps.training_steps.schedule", remember)
        train(resumed(interrupted))
    assert steps == [4, 5, 6]
    metrics = Checkpoint.open(interrupted.out).metrics
    assert [entry.step for entry in metrics.history] == [2, 4, 6]


def test_rejects_resume_with_other_options_and_names_them(interrupted: TrainConfig) -> None:
    with pytest.raises(
        MismatchError, match=r"--temperature changed from 0\.1 to 0\.2\. Restore the old value, or delete"
    ):
        train(resumed(interrupted, temperature=0.2))
    train(resumed(interrupted, workers=1, picture_cache=False))  # these options may change


def test_rejects_resume_on_other_data(interrupted: TrainConfig) -> None:
    with (
        pytest.raises(
            MismatchError, match=r"the digest of the prepared data changed from '[0-9a-f]{64}' to 'abc'"
        ),
        open_run(resumed(interrupted), "abc"),
    ):
        pass


def test_finished_run_keeps_log_and_last_state_and_cannot_be_resumed(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", steps=5, validate_every=2)
    train(config)
    names = {path.name for path in (tmp_path / "out.run").iterdir()}
    assert names == {"run.json", "last.safetensors", "tensorboard"}
    assert saved_step(config) == 5
    with pytest.raises(InputError, match=r"is finished\. Omit --resume to replace it"):
        train(resumed(config))
    train(config)  # a new run replaces it


def test_resume_without_earlier_run_starts_new_run(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out")
    train(resumed(config))
    assert Checkpoint.open(config.out).metrics.steps == 4
    assert "resume" not in json.loads((config.out / "config.json").read_text())


def test_rejects_output_folder_with_foreign_files_before_training(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out")
    config.out.mkdir()
    (config.out / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"out exists and is not an rcml artifact\. Choose another --out"):
        train(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_rejects_second_run_for_same_checkpoint(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out")
    with (
        open_run(config, "digest"),
        pytest.raises(ArtifactError, match="Another run of rcml is writing out now"),
    ):
        train(config)


def test_interrupted_run_can_be_discarded(interrupted: TrainConfig) -> None:
    discard_run(interrupted.out)
    train(interrupted)
    assert open_artifact(interrupted.out, "checkpoint").counts["relations"] == 3


def test_checkpoint_can_have_weights_of_last_step_instead_of_best(prepared: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 6, "validate_every": 1, "learning_rate": 0.03, "keep": "last"}
    config = tiny_training(prepared, tmp_path / "last", **options)
    train(config)
    last = load_file(tmp_path / "last.run" / "last.safetensors")
    kept = load_file(config.out / "model.safetensors")
    assert all(
        torch.equal(kept[name], last[f"network.{name}"]) for name in ("attention.key", "attention.value")
    )
    metrics = Checkpoint.open(config.out).metrics
    assert metrics.validation_hit_at_5 == metrics.history[-1].validation_hit_at_5


def test_resume_ignores_partly_written_state(interrupted: TrainConfig) -> None:
    # A kill during a save leaves the new state under a hidden name, and the old state in place.
    folder = interrupted.out.with_name("out.run")
    for name in ("last", "best-3"):
        (folder / f".{name}.safetensors.partial").write_bytes(b"\0" * 100)
    train(resumed(interrupted))
    assert list(folder.glob(".*")) == []
    assert Checkpoint.open(interrupted.out).metrics.steps == 6


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"[" * 1_000_000,
        b'{"finished": ' + b"9" * 5_000 + b"}",
        b"[]",
        b'{"of": 3, "finished": false}',
        None,
    ],
)
def test_names_a_record_of_a_run_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    config = TrainConfig(prepared=tmp_path, out=tmp_path / "out")
    path = tmp_path / "out.run" / "run.json"
    path.parent.mkdir()
    if content is None:
        os.mkfifo(path)  # opening it would wait
    else:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"run\.json is (damaged|a FIFO)"):
        can_resume(config, "digest")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"[" * 1_000_000, None])
def test_names_a_state_of_a_run_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    if content is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(content)
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters())
    with pytest.raises(ArtifactError, match=r"last\.safetensors is (damaged|a link out of its folder)"):
        Run(tmp_path).load(network, torch.nn.Identity(), optimizer)
