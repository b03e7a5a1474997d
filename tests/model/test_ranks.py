"""Several processes train what one would, and one of them writes it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.checkpoint import Checkpoint
from model.config import TrainConfig
from model.ranks import Ranks
from model.trainer import train

from .planted import tiny_training

CPU = torch.device("cpu")


@given(count=st.integers(0, 500), size=st.integers(1, 20))
def test_the_shares_of_all_ranks_are_the_whole_in_order(count: int, size: int) -> None:
    shares = [Ranks(rank, size, CPU).share(count) for rank in range(size)]
    assert [row for share in shares for row in range(count)[share]] == list(range(count))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def train_on(processes: int, config: TrainConfig) -> subprocess.CompletedProcess[str]:
    config.out.with_suffix(".json").write_text(config.model_dump_json())
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
            *("-m", __name__, str(config.out.with_suffix(".json"))),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_two_processes_train_the_network_that_one_would(prepared: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 6, "validate_every": 3, "keep": "last", "batch_size": 24}
    alone, together = (tiny_training(prepared, tmp_path / name, **options) for name in ("alone", "together"))
    train(alone)
    run = train_on(2, together)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("step 6 of 6") == 1  # one of them speaks
    expected, found = (Checkpoint.open(config.out).metrics for config in (alone, together))
    assert (found["ranks"], expected["ranks"]) == (2, 1)
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    weights = load_file(together.out / "model.safetensors")
    for name, tensor in load_file(alone.out / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


def test_an_error_on_the_first_rank_ends_all_of_them(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out")
    train(config)
    (tmp_path / "out.run" / "best-1.safetensors").write_bytes(b"")
    (tmp_path / "out.run" / "run.json").write_text(json.dumps({"of": {}, "finished": False}))
    run = train_on(2, config)
    assert run.returncode != 0
    assert "Go on with --resume, or remove that folder" in run.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(TrainConfig.model_validate_json(Path(sys.argv[1]).read_text()))
