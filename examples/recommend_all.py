"""Batch job that writes the best items of every item under every relation to Parquet, one file per relation.

    python examples/recommend_all.py var/recommendations --k 20
    python -c "import polars; print(polars.read_parquet('var/recommendations/*.parquet'))"

The files have the columns `relation`, `item_id`, `rank`, `recommended` and `score`. One relation is in memory at a
time. The folder appears when all files are complete. In the name of a file, signs such as `/` of the relation's ID are
percent-encoded.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import polars as pl

from rcml import Client
from service.client import RcmlClientError

BATCH = 100
"""Items of one request: the most that `POST /retrieve/batch` takes."""

SCHEMA = {
    "relation": pl.String,
    "item_id": pl.String,
    "rank": pl.Int32,
    "recommended": pl.String,
    "score": pl.Float32,
}

Row = tuple[str, str, int, str, float]


def write_all(client: Client, out: Path, k: int) -> int:
    """Write one file per relation to the new folder `out` and return the number of recommendations.

    Raises:
        FileExistsError: `out` exists.
        RcmlClientError: the service rejected a request or failed.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists. Remove it, or write to another folder.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a job that was interrupted
    partial.mkdir(parents=True)
    items = [item.item_id for item in client.items()]
    total = 0
    for relation in client.relations().relations[1:]:  # the first relates an item with itself
        rows = [*recommendations(client, items, relation.relation_id, k)]
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        frame.write_parquet(partial / f"{quote(relation.relation_id, safe='')}.parquet")
        total += len(frame)
        print(f"{relation.relation_id}: {len(frame):,} recommendations", file=sys.stderr)
    partial.rename(out)
    return total


def recommendations(client: Client, items: list[str], relation: str, k: int) -> Iterator[Row]:
    """Yield the `k` best items for each of `items` under a relation. Items that were deleted meanwhile have none."""
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        replies = client.retrieve_batch(
            {"item_id": item, "relation": relation, "k": k, "fields": ["item_id"]} for item in batch
        )
        for item, reply in zip(batch, replies, strict=True):
            if reply.answer is not None:
                for result in reply.answer.results:
                    yield relation, item, result.rank, str(result.item.item_id), result.score
            elif reply.status != 404:
                raise RuntimeError(f"Item {item!r} under {relation!r}: {reply.problem}")


def main() -> int:
    """Write the recommendations and print their number."""
    parser = argparse.ArgumentParser(description="Write all recommendations of a server to Parquet.")
    parser.add_argument("out", type=Path, help="new folder for the files")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of rcml serve")
    parser.add_argument(
        "--k",
        type=int,
        default=20,
        choices=range(1, 101),
        metavar="1-100",
        help="how many per item and relation",
    )
    given = parser.parse_args()
    try:
        with Client(given.url, os.environ.get("RCML_KEY")) as client:
            print(f"Wrote {write_all(client, given.out, given.k):,} recommendations to {given.out}.")
    except (OSError, RcmlClientError, RuntimeError) as error:
        print(f"recommend_all: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
