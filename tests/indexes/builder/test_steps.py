"""Messages about the steps of builds and compactions."""

import re
from pathlib import Path

import pytest

from indexes.admin.inspection import compact
from indexes.builder.steps import step
from indexes.config import CompactConfig
from indexes.index import Index
from tests.indexes.changes import copied, made
from tests.indexes.fakes import FakeShop, write_shop


def test_rate_and_memory_are_told_at_the_end() -> None:
    told: list[str] = []
    with step("counting", 1_200, "sheep", told.append) as advance:
        advance(1_200)
    assert re.fullmatch(
        r"counting: 1,200 sheep in 0\.\d s, [\d,]+/s; peak memory so far [\d.,]+ [MG]iB", told[0]
    )
    assert len(told) == 1


def test_remaining_time_is_told_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 60.0, 70.0, 120.0, 240.0])
    monkeypatch.setattr("indexes.builder.steps.monotonic", lambda: next(now))
    told: list[str] = []
    with step("counting", 400, "sheep", told.append) as advance:
        for _ in range(4):
            advance(100)
    assert told[:2] == [
        "counting: 200 of 400 sheep, 3/s, 1 minutes left",
        "counting: 400 of 400 sheep, 3/s, 0 minutes left",
    ]
    assert told[2].startswith("counting: 400 sheep in 240.0 s, 2/s; peak memory so far ")


def test_failed_step_tells_nothing() -> None:
    told: list[str] = []
    with pytest.raises(KeyError), step("counting", 400, "sheep", told.append):
        raise KeyError
    assert told == []


def steps(stderr: str) -> list[str]:
    """Return the labels of the steps that were told."""
    return [line.partition(":")[0] for line in stderr.splitlines() if "peak memory" in line]


def test_build_tells_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shop(tmp_path, token_store=True)
    assert steps(capsys.readouterr().err) == [
        "indexing vectors (flat)",
        "storing tokens",
        "precomputing answers",
        "writing items",
    ]


def test_compaction_tells_every_step_unless_a_server_makes_it(
    shop: FakeShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(shop, tmp_path)
    index = Index.open(path)
    index.apply([made("new", 1)])
    capsys.readouterr()
    index.compact()
    assert steps(capsys.readouterr().err) == []
    index.apply([made("newer", 2)])
    index.close()
    compact(CompactConfig(index=path))
    assert steps(capsys.readouterr().err) == [
        "indexing vectors (flat)",
        "precomputing answers",
        "writing items",
    ]
