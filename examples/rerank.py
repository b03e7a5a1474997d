r"""Re-ranker beside an existing search: item IDs in, one per line, and the same IDs out, best first.

    printf 'i0182\ni0007\ni0209\n' | python examples/rerank.py --item i0000 --relation garden-home

The search finds what was typed. The re-ranker puts first what goes with the item that the customer looks at, under a
relation. Only the first 100 IDs are ranked. IDs that rcml does not know come after the ranked ones, in their old order.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from rcml import Client
from service.client import ConnectionFailed, Overloaded, RcmlClientError, Unavailable

HEAD = 100
"""Number of IDs to rank: the largest `k` of `POST /retrieve`."""


def rerank(client: Client, item_id: str, relation: str, candidates: Sequence[str]) -> list[str]:
    """Return `candidates` in the order of their scores with an item under a relation.

    If the service is overloaded or unreachable, the order stays as it is: a search must not fail with its re-ranker.

    Raises:
        RcmlClientError: the request is wrong, for example because the item or the relation does not exist.
    """
    head, tail = candidates[:HEAD], candidates[HEAD:]
    if not head:
        return []
    try:
        answer = client.retrieve(
            item_id=item_id, relation=relation, include=head, k=len(head), fields=["item_id"]
        )
    except (ConnectionFailed, Overloaded, Unavailable) as error:
        print(f"Not re-ranked: {error}", file=sys.stderr)
        return list(candidates)
    ranked = [one for result in answer.results if (one := result.item.item_id)]
    known = set(ranked)
    return [*ranked, *(one for one in head if one not in known), *tail]


def main() -> int:
    """Re-rank the IDs on standard input and print them."""
    parser = argparse.ArgumentParser(
        description="Re-rank item IDs, one per line, by a relation with an item."
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of rcml serve")
    parser.add_argument("--item", required=True, help="ID of the item that the customer looks at")
    parser.add_argument("--relation", required=True, help="ID of a relation, as GET /relations lists them")
    given = parser.parse_args()
    candidates = [item_id for line in sys.stdin if (item_id := line.strip())]  # an ID may contain spaces
    try:
        with Client(given.url, os.environ.get("RCML_KEY"), timeout=0.5, retries=0) as client:
            print("\n".join(rerank(client, given.item, given.relation, candidates)))
    except RcmlClientError as error:
        print(f"rerank: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
