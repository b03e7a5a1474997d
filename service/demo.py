"""The demo, `rcml demo`: every stage on the sample shop, then a running server.

Each stage's artifact is reused when it is sound, made with the same options and from the same parents, so a
second run is up in seconds; otherwise it and all that follows from it are made again.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import TypeVar

from indexes.config import BuildConfig
from indexes.storage.layout import newest_generation
from model.artifact import Kind, file_digest, open_artifact, saved
from model.config import EvaluateConfig, Objective, PrepareConfig, ShopConfig, StageConfig, TrainConfig
from model.console import say
from model.errors import ArtifactError
from model.similarity import Similarity
from service.engine.engine import Engine
from service.middleware.api_keys import Keys

from .settings import DemoConfig, ServeConfig

OBJECTIVES: tuple[Objective, ...] = ("rcml", "clip", "blind")
"""What is trained, the network to be served first."""

Config = TypeVar("Config", bound=StageConfig)


def run(config: DemoConfig) -> str:
    """Make what is not there yet, then serve (or stop, with `--no-serve`); returns a closing line.

    Raises:
        RcmlError: a stage refuses to run.
    """
    out = config.out
    if not config.serve:
        make_all(config)
        return f"The sample shop is ready: `rcml serve --index {out / 'index'}` serves it."
    serving = ServeConfig(
        index=out / "index",
        report=out / "report",
        host=config.host,
        port=config.port,
        unguarded=config.unguarded,
        log_format="text",  # its commands are to be pasted, whoever reads them
    )
    Keys.open(serving)  # a refusal is better heard before the minutes of work
    make_all(config)
    from .serve import serve

    return serve(serving, banner)


def make_all(config: DemoConfig) -> None:
    """Run every stage from the shop to the index, under `config.out`."""
    out = config.out
    items, interactions = out / "shop" / "items.jsonl", out / "shop" / "interactions.csv"
    _stage(
        "shop",
        ShopConfig(out=out / "shop", items=config.items, shoppers=config.shoppers, seed=config.seed),
        _make_shop,
    )
    prepared = _stage(
        "prepared",
        PrepareConfig(
            items=items,
            interactions=interactions,
            out=out / "prepared",
            text_fields=("title", "categories"),
            seed=config.seed,
        ),
        _prepare,
        {"items": file_digest(items), "interactions": file_digest(interactions)},
    )
    checkpoints: dict[str, str] = {
        objective: _stage(
            "checkpoint",
            TrainConfig(
                prepared=out / "prepared",
                out=out / objective,
                objective=objective,
                steps=config.steps,
                validate_every=max(1, config.steps // 4),
                patience=2,
                seed=config.seed,
            ),
            _train,
            {"prepared": prepared},
        )
        for objective in OBJECTIVES
    }
    _stage(
        "report",
        EvaluateConfig(
            checkpoint=out / "rcml",
            prepared=out / "prepared",
            out=out / "report",
            clip=out / "clip",
            blind=out / "blind",
            seed=config.seed,
        ),
        _evaluate,
        {"prepared": prepared, **checkpoints},
    )
    _stage(
        "index",
        BuildConfig(checkpoint=out / "rcml", prepared=out / "prepared", out=out / "index", token_store=True),
        _index,
        {"prepared": prepared, "checkpoint": checkpoints["rcml"]},
    )


def banner(engine: Engine, url: str) -> list[str]:
    """Word three questions that this index can answer, as commands to paste."""
    item = engine.index.snapshot.page(0, 1)[0][1].item_id
    relation, partner = _best_partner(engine, item)
    pair = {"item_a": item, "item_b": partner}
    questions: dict[str, dict[str, object]] = {
        "retrieve": {"item_id": item, "relation": relation, "k": 3},
        "relation-type": {**pair},
        "validity": {**pair, "relation": relation},
    }
    return ["Ask it:", *(_curl(f"{url}/{path}", body) for path, body in questions.items())]


def _best_partner(engine: Engine, item_id: str) -> tuple[str, str]:
    """Find the relation that most surely holds between the item and its closest partner under it, and that partner."""
    found = []
    reader = engine.index.reader()
    for relation in reader.relations:
        if not relation.intra:
            [hit] = reader.neighbours(item_id, relation.relation_id, Similarity.AVG, 1)
            partner = hit.item.item_id
            probability = reader.validity(item_id, partner, relation.relation_id).probability
            found.append((probability, relation.relation_id, partner))
    _, relation_id, partner = max(found)
    return relation_id, partner


def _curl(url: str, body: dict[str, object]) -> str:
    return f"  curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def _stage(
    kind: Kind, config: Config, make: Callable[[Config], str], parents: Mapping[str, str] | None = None
) -> str:
    """Reuse the artifact of a stage if it is what would be made now, else make it; returns its digest."""
    try:
        place = newest_generation(config.out) if kind == "index" else config.out
        manifest = open_artifact(place, kind)
    except ArtifactError:
        pass
    else:
        options = (place / "config.json").read_text(encoding="utf-8")
        if options == saved(config) and manifest.parents == (parents or {}):
            say(f"Reusing {config.out}.")
            return manifest.digest
    say(make(config))
    return open_artifact(newest_generation(config.out) if kind == "index" else config.out, kind).digest


# A stage's module is imported when the stage runs: a second run, which only serves, loads none of them.


def _make_shop(config: ShopConfig) -> str:
    from model.sample_shop.generate import make_shop

    return make_shop(config)


def _prepare(config: PrepareConfig) -> str:
    from model.data.prepare import prepare

    return prepare(config)


def _train(config: TrainConfig) -> str:
    from model.training.run_state import discard_run
    from model.training.train import train

    discard_run(config.out)  # an interrupted one may have had other options, and a minute is soon made up for
    return train(config)


def _evaluate(config: EvaluateConfig) -> str:
    from model.evaluation.evaluate import evaluate

    return evaluate(config)


def _index(config: BuildConfig) -> str:
    from .build_index import build

    return build(config)
