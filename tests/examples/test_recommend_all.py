"""Tests of the batch job that writes all recommendations to Parquet."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from examples.recommend_all import SCHEMA, main, write_all
from indexes.index import Index
from model.similarity import Similarity
from rcml import Client
from service.client import Invalid, Retrieval
from service.schemas.relations import RelationList
from service.schemas.retrieve import RetrieveReply
from tests.conftest import Road

K = 3


def test_writes_the_best_items_of_every_item_under_every_relation(
    client: Client, road: Road, tmp_path: Path
) -> None:
    total = write_all(client, tmp_path / "all", K)
    table = pl.read_parquet(tmp_path / "all" / "*.parquet")
    index = Index.open(road.folder / "index")
    relations = [one.relation_id for one in index.relations if not one.intra]
    assert table.schema == SCHEMA
    assert {path.stem for path in (tmp_path / "all").iterdir()} == set(relations)
    assert total == len(table) == len(index) * len(relations) * K
    hits = index.reader().neighbours("i0007", relations[1], Similarity.AVG, K)
    index.close()
    rows = table.filter((pl.col("item_id") == "i0007") & (pl.col("relation") == relations[1])).sort("rank")
    assert rows["recommended"].to_list() == [hit.item.item_id for hit in hits]
    assert rows["score"].to_list() == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert not (tmp_path / ".all.partial").exists()


class Renamed(Client):
    """Client of a server whose last relation has another ID."""

    relation_id = "../gifts/new"

    def relations(self) -> RelationList:
        answer = super().relations()
        *others, last = answer.relations
        self.known_as = last.relation_id
        renamed = last.model_copy(update={"relation_id": self.relation_id})
        return answer.model_copy(update={"relations": [*others, renamed]})

    def retrieve_batch(self, questions: Iterable[Retrieval]) -> list[RetrieveReply]:
        return super().retrieve_batch(
            Retrieval(**question | {"relation": self.known_as})
            if question.get("relation") == self.relation_id
            else question
            for question in questions
        )


def test_file_of_a_relation_with_slashes_in_its_id_is_in_the_folder(url: str, tmp_path: Path) -> None:
    out = tmp_path / "all"
    with Renamed(url) as client:
        write_all(client, out, 1)
    table = pl.read_parquet(out / "..%2Fgifts%2Fnew.parquet")
    assert table["relation"].unique().to_list() == [Renamed.relation_id]
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_does_not_write_to_a_folder_that_exists(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="Remove it, or write to another folder"):
        write_all(client, tmp_path, K)


def test_failed_job_leaves_no_folder_and_can_be_repeated(client: Client, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="k must be at most 100"):
        write_all(client, tmp_path / "all", 101)
    assert not (tmp_path / "all").exists()
    assert write_all(client, tmp_path / "all", 1) > 0


def test_command_prints_the_number_and_refuses_a_second_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    monkeypatch.setattr("sys.argv", ["recommend_all.py", str(out), "--url", url, "--k", "1"])
    assert main() == 0
    assert capsys.readouterr().out == f"Wrote 3,360 recommendations to {out}.\n"
    assert main() == 1
    assert capsys.readouterr().err.startswith(f"recommend_all: {out} exists. ")
