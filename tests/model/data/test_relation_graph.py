"""Relations of prepared data: presets, texts edited by hand, the chosen number of clusters, and noise."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from tests.model.planted import edges_only_config, prepared_of, two_camps, write_log, write_pictured_items


def changed(config: PrepareConfig, **options: Any) -> PrepareConfig:
    """Return other options, which are checked like those of a command line."""
    return PrepareConfig(**{**config.model_dump(), **options})


def advice_of(prepared: Prepared) -> list[str]:
    advice: list[str] = json.loads((prepared.path / "report.json").read_text())["advice"]
    return advice


def texts_of(prepared: Prepared) -> dict[str, str]:
    return {relation.relation_id: relation.description for relation in prepared.relations}


def test_edited_relations_of_an_earlier_run_are_kept_even_in_the_same_folder(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    first = prepared_of(config)
    path = config.out / "relations.json"
    edited = path.read_text().replace(texts_of(first)["pans"], "Bought by people who cook.")
    (tmp_path / "edited.json").write_text(edited)
    again = prepared_of(changed(config, relation_texts=tmp_path / "edited.json"))
    assert texts_of(again) == {**texts_of(first), "pans": "Bought by people who cook."}
    assert "2 of 2 relations have the texts of --relation-texts." in advice_of(again)
    assert again.edges == first.edges
    kept = prepared_of(changed(config, relation_texts=path))
    assert texts_of(kept) == texts_of(again)


def test_texts_of_another_log_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    (tmp_path / "texts.csv").write_text("relation,description\ntents,Campers.\n")
    with pytest.raises(InputError, match="describes the relations tents, but the log has the relations"):
        prepare(changed(config, relation_texts=tmp_path / "texts.csv"))
    assert not config.out.exists()


def camps_of_babies(folder: Path) -> PrepareConfig:
    """Return the two camps with categories of the preset "baby"."""
    config = two_camps(folder)
    names = {"b": "Feeding", "p": "Potty Training"}
    write_pictured_items(folder, {f"{side}{n:02d}": [names[side]] for side in "bp" for n in range(12)})
    return config


def test_a_preset_gives_its_texts_to_the_clusters_that_fit(tmp_path: Path) -> None:
    config = camps_of_babies(tmp_path)
    prepared = prepared_of(changed(config, preset="baby"))
    texts = texts_of(prepared)
    assert list(texts)[1:] == ["feeding", "potty-training"] or list(texts)[1:] == [
        "potty-training",
        "feeding",
    ]
    assert texts["feeding"].startswith(
        "Co-purchased by people who overwhelmingly favor Feeding, with much lower"
    )
    assert texts["potty-training"].startswith("Co-purchased by people who strongly favor Potty Training")
    assert {(edge.relation_id, edge.item_a[0]) for edge in prepared.edges} == {
        ("feeding", "b"),
        ("potty-training", "p"),
    }
    assert sum("Jensen-Shannon distance" in sentence for sentence in advice_of(prepared)) == 2


def test_a_preset_of_another_domain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No item has any of them\. Choose the preset of your domain"):
        prepare(changed(two_camps(tmp_path), preset="sports"))


def test_the_number_of_clusters_is_chosen_and_told(tmp_path: Path) -> None:
    prepared = prepared_of(changed(two_camps(tmp_path), clusters="auto"))
    assert len(prepared.relations) == 3
    assert "--clusters auto chose 2 clusters." in advice_of(prepared)


def test_noise_is_told_with_a_value_that_helps(tmp_path: Path) -> None:
    # Every user has 8 of 12 items in a (cyclic) row, so all pairs have users: 14 for neighbours, otherwise 12 or less.
    config = two_camps(tmp_path)
    taken = {
        f"{side}{user:02d}": [f"{side}{(user + step) % 12:02d}" for step in range(8)]
        for side in "bp"
        for user in range(24)
    }
    write_log(tmp_path / "log.jsonl", taken)
    advice = advice_of(prepared_of(changed(config, partners=20)))
    said = "100% of all pairs of its 12 items are related, so the relation says little about a pair"
    remedy = "raise --min-support to about 13."
    assert sorted(advice) == [f"Under {name!r}, {said}: {remedy}" for name in ("books", "pans")]
    better = prepared_of(changed(config, partners=20, min_support=13))
    assert advice_of(better) == []
    assert {edge.support for edge in better.edges} == {14}


@pytest.mark.parametrize("clusters", ["1", "many", 101, 2.5, True, ""])
def test_rejects_a_number_of_clusters_that_is_none(clusters: object, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="must be a whole number from 2 to 100, or auto"):
        changed(two_camps(tmp_path), clusters=clusters)


def test_rejects_a_preset_for_ready_made_edges(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="--preset describes the clusters of a log"):
        changed(edges_only_config(tmp_path), preset="baby")


def test_rejects_edges_without_texts(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="--edges needs --relation-texts"):
        changed(edges_only_config(tmp_path), relation_texts=None)
