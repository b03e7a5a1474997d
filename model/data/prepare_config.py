"""Options of `rcml prepare`: its command line, and the `config.json` of prepared data.

This module imports nothing heavy because `rcml --help` loads it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from model.config import Behaviour, Paths, Share, StageConfig, TextField

SourceName = Literal[
    "table",
    "amazon-2014",
    "amazon-2018",
    "amazon-2023",
    "goodreads",
    "hm",
    "movielens",
    "recbole",
    "shopify",
    "woocommerce",
]
PresetName = Literal[
    "automotive",
    "baby",
    "electronics",
    "goodreads",
    "musical-instruments",
    "office-products",
    "pet-supplies",
    "sports",
]
ColumnType = Literal["text", "number", "integer", "boolean"]
SplitRule = Literal["items", "time"]


MAX_CLUSTERS = 100
"""Maximum number of user clusters."""


def _cluster_count(given: object) -> object:
    """Return the number of clusters, or "auto"; both may be texts."""
    text = str(given)
    if text != "auto" and not (text.isdecimal() and 2 <= int(text) <= MAX_CLUSTERS):
        raise ValueError(
            f"--clusters must be a whole number from 2 to {MAX_CLUSTERS}, or auto; {text[:40]!r} was given"
        )
    return text if text == "auto" else int(text)


class PrepareConfig(StageConfig):
    """Turn raw items and an interaction log (or your own edges) into items, relations and edges."""

    source: SourceName = Field(
        "table",
        description="format of the files, such as amazon-2023; table: columns with rcml's names, or others by "
        "--columns",
    )
    folder: Path | None = Field(
        None, description="folder with the files of --source, found by their usual names"
    )
    items: Paths = Field(
        (),
        description="items: files, folders of part files or patterns such as 'part-*.csv'; .csv, .tsv, .jsonl, "
        ".json or .parquet, also compressed, with item_id, title and optional categories, description, image",
    )
    out: Path = Field(description="folder to write the prepared data to")
    interactions: Paths = Field(
        (),
        description="interaction log: files in the same formats, with user_id, item_id and optional rating, timestamp",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="names of your columns, such as title=product_name,categories='category_path: > ' "
        "(after the colon: what separates several values in a cell)",
    )
    types: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="types of attributes, such as size=text,price=number; others are decided from their values",
    )
    edges: Path | None = Field(
        None,
        description="your own edges instead of a log, in the same formats, with item_a, item_b, relation",
    )
    relation_texts: Path | None = Field(
        None,
        description="descriptions of the relations in --edges, in the same formats, with relation, description; with a "
        "log: your own texts for some of its relations, such as relations.json of an earlier run, edited",
    )
    images: Path | None = Field(
        None, description="folder that the picture paths are relative to; none: the folder of the items file"
    )
    fetch: bool = Field(
        False, description="download pictures that are given as http or https addresses; off: asks no network"
    )
    fetch_cache: Path | None = Field(
        None,
        description="folder that keeps downloaded pictures, so that a later run fetches only what is missing; none: "
        "fetched-pictures next to --out",
    )
    fetch_connections: int = Field(64, ge=1, le=1000, description="maximum number of downloads at once")
    fetch_per_host: int = Field(
        16, ge=1, le=1000, description="maximum number of downloads at once from a host"
    )
    fetch_hosts: tuple[str, ...] = Field(
        (),
        description="hosts (name or name:port) that may be asked although their address is private, such as an "
        "intranet; all others must be public",
    )
    behaviour: Behaviour = Field(
        "buy", description="what users do with the items; sets the wording of the relation descriptions"
    )
    domain: str = Field(
        "",
        max_length=100,
        description="name of the shop or trade, stored with every relation and shown to users; may be empty",
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "categories", "description"),
        min_length=1,
        description="item fields that the text tower reads, in this order",
    )
    text_only: bool = Field(
        True,
        description="keep items without a picture: they are indexed and found by their text, but not trained on",
    )
    picture_size: int = Field(
        256, ge=32, le=2048, description="maximum side length of the stored pictures, in pixels"
    )
    min_rating: float | None = Field(
        None, allow_inf_nan=False, description="ignore interactions with a lower rating; none: no minimum"
    )
    repair_ids: bool = Field(
        False,
        description="join interactions to items if their IDs differ only in blanks, case, leading zeros or a final .0",
    )
    min_user_items: int = Field(5, ge=2, description="ignore users with fewer items")
    max_user_items: int = Field(
        500, ge=2, description="maximum number of items per user; only the latest are kept"
    )
    min_item_users: int = Field(5, ge=1, description="ignore items with fewer users")
    clusters: Annotated[int | Literal["auto"], BeforeValidator(_cluster_count)] = Field(
        10,
        description="number of user clusters (2 to 100), each of which becomes a relation; auto: the number from 2 to "
        "20 with the most distinct clusters",
    )
    preset: PresetName | None = Field(
        None,
        description="domain whose relation texts of the paper (appendix A.2) describe the clusters that fit them best",
    )
    min_support: int = Field(
        3, ge=1, description="minimum number of users in a cluster who have both items of a pair"
    )
    min_npmi: float = Field(
        0.0,
        ge=-1.0,
        le=1.0,
        description="minimum NPMI (normalised pointwise mutual information) of a pair in its cluster; 0: chance level",
    )
    partners: int = Field(
        10,
        ge=1,
        le=1000,
        description="number of best partners (by NPMI) of an item in a cluster; a pair is kept if one of its "
        "items is a best partner of the other",
    )
    split: SplitRule = Field(
        "items",
        description="items: by a hash of the item ID, so that an item keeps its split when others are added; time: the "
        "items whose first interaction is latest are held out; near-duplicates (same title or picture) stay together",
    )
    validation_share: Share = Field(
        0.1, description="expected share of the items held out for validation during training"
    )
    test_share: Share = Field(0.2, description="expected share of the items held out for `rcml evaluate`")
    seed: int = Field(0, ge=0, description="random seed of the clustering and the data split")

    @property
    def item_path(self) -> Path | None:
        """First path of the items, for messages."""
        return self.items[0] if self.items else self.folder

    @property
    def log_path(self) -> Path | None:
        """First path of the log, for messages; None if there are edges instead."""
        return self.interactions[0] if self.interactions else self.folder

    @model_validator(mode="after")
    def _one_source(self) -> "PrepareConfig":
        if not self.items and self.folder is None:
            raise ValueError("--items is required, or --source and --folder. Name the file of your items")
        if self.folder is not None and self.source == "table":
            raise ValueError(
                "--folder needs a --source other than table, which says what the files in it are. For tables, give "
                "--items and --interactions"
            )
        has_log = bool(self.interactions) or (self.folder is not None and self.edges is None)
        if has_log == (self.edges is not None):
            raise ValueError(
                "exactly one of --interactions and --edges is required. Give a log, or edges with --relation-texts"
            )
        if self.edges is not None and self.relation_texts is None:
            raise ValueError("--edges needs --relation-texts, which describes the relations of the edges")
        if self.edges is not None and self.preset is not None:
            raise ValueError(
                "--preset describes the clusters of a log and cannot be used with --edges. Leave it out"
            )
        if self.split == "time" and self.edges is not None:
            raise ValueError(
                "--split time needs --interactions, because edges have no times. Give a log, or use --split items"
            )
        if self.min_user_items > self.max_user_items:
            raise ValueError(
                f"--min-user-items {self.min_user_items} is more than --max-user-items {self.max_user_items}, so no "
                "user is left. Choose a lower minimum"
            )
        if (self.fetch_cache is not None or self.fetch_hosts) and not self.fetch:
            raise ValueError("--fetch-cache and --fetch-hosts need --fetch. Add it, or leave them out")
        if self.validation_share + self.test_share >= 1.0:
            raise ValueError(
                "--validation-share and --test-share must sum to less than 1, to leave items for training"
            )
        return self
