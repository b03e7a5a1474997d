"""Tests of the re-ranker."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.rerank import HEAD, rerank
from rcml import Client
from service.client import NotFound
from tests.docs.documents import ROOT

CANDIDATES = [f"i{number:04d}" for number in range(20, 60)]


@pytest.fixture
def relation(client: Client) -> str:
    return client.relations().relations[-1].relation_id


def test_orders_candidates_by_their_scores(client: Client, relation: str) -> None:
    everything = client.retrieve(item_id="i0000", relation=relation, k=100).results
    everything += client.retrieve(item_id="i0000", relation=relation, k=100, cursor=100).results
    everything += client.retrieve(item_id="i0000", relation=relation, k=100, cursor=200).results
    everything += client.retrieve(item_id="i0000", relation=relation, k=100, cursor=300).results
    wanted = [result.item.item_id for result in everything if result.item.item_id in CANDIDATES]
    assert len(wanted) == len(CANDIDATES)
    assert rerank(client, "i0000", relation, CANDIDATES[::-1]) == wanted


def test_keeps_every_id_and_the_order_of_unknown_ones(client: Client, relation: str) -> None:
    ranked = rerank(client, "i0000", relation, ["no-such", "i0020", "i0000", "nor-this", "i0021"])
    assert sorted(ranked[:2]) == ["i0020", "i0021"]
    assert ranked[2:] == ["no-such", "i0000", "nor-this"]
    assert rerank(client, "i0000", relation, []) == []


def test_leaves_ids_after_the_head_in_place(client: Client, relation: str) -> None:
    candidates = [f"i{number:04d}" for number in range(1, HEAD + 31)]
    ranked = rerank(client, "i0000", relation, candidates)
    assert sorted(ranked[:HEAD]) == candidates[:HEAD]
    assert ranked[HEAD:] == candidates[HEAD:]


def test_keeps_the_order_if_the_service_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    with Client("http://127.0.0.1:9", timeout=1, retries=0) as client:
        assert rerank(client, "i0000", "garden-home", CANDIDATES) == CANDIDATES
    assert capsys.readouterr().err.startswith("Not re-ranked: ")


def test_wrong_relation_is_an_error(client: Client) -> None:
    with pytest.raises(NotFound, match="no-such-relation"):
        rerank(client, "i0000", "no-such-relation", CANDIDATES)


def command(
    folder: Path, url: str, relation: str, candidates: Sequence[str] = CANDIDATES
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` with `candidates` as its input."""
    words = [sys.executable, str(ROOT / "examples" / "rerank.py")]
    options = ["--url", url, "--item", "i0000", "--relation", relation]
    text = "\n".join(candidates)
    return subprocess.run([*words, *options], input=text, capture_output=True, text=True, cwd=folder)


def test_command_reads_and_prints_ids(client: Client, url: str, relation: str, tmp_path: Path) -> None:
    shown = command(tmp_path, url, relation)
    assert shown.stdout.split() == rerank(client, "i0000", relation, CANDIDATES), shown.stderr


def test_command_keeps_ids_with_spaces(url: str, relation: str, tmp_path: Path) -> None:
    shown = command(tmp_path, url, relation, ["red mug 7", "", "i0020"])
    assert shown.stdout.splitlines() == ["i0020", "red mug 7"], shown.stderr


def test_command_fails_with_the_problem(url: str, tmp_path: Path) -> None:
    shown = command(tmp_path, url, "no-such-relation")
    assert shown.returncode == 1
    assert shown.stderr.startswith("rerank: No relation has the ID 'no-such-relation'.")
