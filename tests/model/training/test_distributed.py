"""Tests of distributed training: several processes train the same network as one, and one of them writes it."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.checkpoint.checkpoint import Checkpoint
from model.config import TrainConfig
from model.training.distributed import ProcessGroup, join_process_group
from model.training.train import train
from tests.model.planted import tiny_training

CPU = torch.device("cpu")

HIDE_CURSOR = "\x1b[?25l"
"""Escape sequence at the start of a progress bar."""


@given(count=st.integers(0, 500), size=st.integers(1, 20))
def test_shares_of_ranks_cover_all_rows_in_order(count: int, size: int) -> None:
    shares = [ProcessGroup(rank, size, CPU).share(count) for rank in range(size)]
    assert [row for share in shares for row in range(count)[share]] == list(range(count))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_collective_timeout_is_at_least_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {
        "TORCHELASTIC_RUN_ID": "test", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with join_process_group("cpu"):
        group: Any = dist.group.WORLD
        assert group._get_backend(CPU).options._timeout >= timedelta(hours=12)


def train_on(processes: int, config: TrainConfig) -> tuple[int, str]:
    """Train with `torchrun` and return the exit status and what appeared on the terminal."""
    config.out.with_suffix(".json").write_text(config.model_dump_json())
    screen, stderr = pty.openpty()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *("-m", __name__, str(config.out.with_suffix(".json"))),
    ]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    ) as run:
        os.close(stderr)
        seen = b""
        with suppress(OSError):  # raised when the last process has closed the terminal
            while some := os.read(screen, 65_536):
                seen += some
        os.close(screen)
    return run.returncode, seen.decode()


def test_two_processes_train_same_network_as_one(prepared: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "steps": 6, "validate_every": 3, "keep": "last", "batch_size": 24, "normalise_tokens": True
    }  # fmt: skip
    alone, together = (tiny_training(prepared, tmp_path / name, **options) for name in ("alone", "together"))
    train(alone)
    status, seen = train_on(2, together)
    assert status == 0, seen
    assert seen.count("step 6 of 6") == 1  # only the first rank prints messages
    # Bars of the first rank: pictures whose tokens are measured, pictures of two splits, and training.
    assert seen.count(HIDE_CURSOR) == 4
    expected, found = (Checkpoint.open(config.out).metrics for config in (alone, together))
    assert (found.ranks, expected.ranks) == (2, 1)
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours.model_dump() == pytest.approx(theirs.model_dump(), rel=1e-4)
    weights = load_file(together.out / "model.safetensors")
    for name, tensor in load_file(alone.out / "model.safetensors").items():
        # A bias of the keys adds the same constant to all scores of a query, so its gradient is only rounding error.
        # Adam scales this error to a step of normal size, so the steps of the two runs may differ in direction.
        noise = name.endswith("k_proj.bias")
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-3 if noise else 1e-4)


def test_error_on_first_rank_ends_all_ranks(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out")
    train(config)
    (tmp_path / "out.run" / "best-1.safetensors").write_bytes(b"")
    (tmp_path / "out.run" / "run.json").write_text(json.dumps({"of": {}, "finished": False}))
    status, seen = train_on(2, config)
    assert status != 0
    assert "Continue it with --resume, or delete this folder" in seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(TrainConfig.model_validate_json(Path(sys.argv[1]).read_text()))
