"""Changes to an index for tests, and the expected index: a dictionary of items, compared one by one."""

import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from indexes.admin.backup import restore
from indexes.config import RestoreConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.vectors.contract import cosines
from model.records import Item, Relation
from model.similarity import Similarity, View

from .fakes import ITEMS, FakeEncoder, FakeShop, relation_position

WORDS = ("red", "blue", "striped", "mug", "lamp", "cot", "silk", "tie", "steel", "green")


def copied(shop: FakeShop, folder: Path) -> Path:
    """Copy the shop's index and checkpoint into `folder`, and return the path of the copied index."""
    shutil.copytree(shop.checkpoint, folder / "checkpoint")
    return Path(shutil.copytree(shop.index, folder / "index"))


def placed(shop: FakeShop, folder: Path, vectors: str | None = None, journal: str | None = None) -> Path:
    """Restore the shop's index into `folder`, with its vectors and changes on the given servers; return its path."""
    shutil.copytree(shop.checkpoint, folder / "checkpoint")
    options = RestoreConfig(
        snapshot=shop.index,
        out=folder / "index",
        checkpoint=folder / "checkpoint",
        vectors=vectors,
        journal=journal,
    )
    restore(options)
    return options.out


def made(item_id: str, seed: int) -> Change:
    """Return the change that adds an item titled with two random words.

    Items made from the same seed differ only in their ID.
    """
    rng = np.random.default_rng(seed)
    title = " ".join(rng.choice(WORDS, 2))
    item = Item(
        item_id,
        title,
        f"{title}, new.",
        (WORDS[seed % 10],),
        f"{title}. {WORDS[seed % 10]}",
        "new.png",
        {"price": seed, "model": title.split()[0]},
    )
    picture = BytesIO()
    Image.new("RGB", (8, 8), tuple(rng.integers(0, 256, 3).tolist())).save(picture, "PNG")
    return put(item, picture.getvalue())


def put(item: Item, picture: bytes) -> Change:
    """Return the change that adds or replaces `item`."""
    encoding = FakeEncoder().read_items(
        [item.text], [Image.open(BytesIO(picture)).convert("RGB")], tokens=True
    )()
    vectors = np.stack([encoding.view(view)[0] for view in View]).astype(np.float16)
    return Change.put(item, vectors, picture, encoding.tokens)


SAILORS = Relation("sailors", "Striped, and worn by sailors.")
GIFTS = Relation("gifts / new", "Blue gifts for people who love a cot.")

WORDED = {one.relation_id: FakeEncoder().read_relation(one.description) for one in (SAILORS, GIFTS)}
"""Free-text forms of the relations that tests add to an index, by relation ID."""


def add(index: Index, relation: Relation = SAILORS) -> None:
    """Add one of the relations in `WORDED` to an index."""
    index.add_relation(relation, WORDED[relation.relation_id])


class Expected:
    """Expected contents of an index after some changes: a dictionary in catalogue order."""

    def __init__(self, shop: FakeShop) -> None:
        self.items = {
            item.item_id: put(item, (shop.generation / item.picture).read_bytes()) for item in ITEMS
        }

    def apply(self, *changes: Change) -> None:
        """Apply changes as an index does."""
        for change in changes:
            self.items.pop(change.item_id, None)
            if change.item is not None:
                self.items[change.item_id] = change

    def ranking(self, item_id: str, relation_id: str, similarity: Similarity) -> list[tuple[str, float]]:
        """Return every other item and its score, best first; equal scores are in catalogue order."""
        query_view, target_view = similarity.views
        scores = cosines(
            self._vectors(relation_id, target_view), self._vector(item_id, relation_id, query_view)
        )
        ranked = sorted(zip(self.items, scores.tolist(), strict=True), key=lambda scored: -scored[1])
        return [(other, score) for other, score in ranked if other != item_id]

    def check(self, index: Index) -> None:
        """Check all items of an index, their pictures and their neighbours."""
        snapshot = index.snapshot
        page = [item for _, item in snapshot.page(0, 10_000)]
        assert [item.item_id for item in page] == list(self.items)
        assert len(index) == len(self.items)
        for item in page:
            expected = self.items[item.item_id]
            assert expected.item is not None
            assert replace(item, picture="") == replace(expected.item, picture="")
            digest, picture, _ = index.picture(item.item_id)
            assert digest == expected.picture_sha256
            assert (picture if isinstance(picture, bytes) else picture.read_bytes()) == expected.picture
        for number, item_id in enumerate(self.items):
            relation = index.relations[number % len(index.relations)].relation_id
            similarity = list(Similarity)[number % len(Similarity)]
            for k in (3, 1_000):
                hits = index.reader().neighbours(item_id, relation, similarity, k)
                ranking = self.ranking(item_id, relation, similarity)[:k]
                assert [(hit.item.item_id, hit.score) for hit in hits] == ranking

    def _vectors(self, relation_id: str, view: View) -> ndarray:
        return np.stack([self._vector(item_id, relation_id, view) for item_id in self.items])

    def _vector(self, item_id: str, relation_id: str, view: View) -> ndarray:
        vectors, tokens = self.items[item_id].vectors, self.items[item_id].tokens
        assert vectors is not None
        if (worded := WORDED.get(relation_id)) is not None:
            assert tokens is not None
            own: ndarray = worded.view(tokens, view, np.array([0]))[0]
        else:
            own = vectors[list(View).index(view), relation_position(relation_id)]
        return np.asarray(own.astype(np.float16), np.float32)
