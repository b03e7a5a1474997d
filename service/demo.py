"""The demo, `rcml demo`: runs every stage on the sample shop, then starts the server.

The artifact of a stage is reused if it is intact and was made with the same options from the same parent artifacts.
Otherwise the stage and every stage that depends on it run again. A second run therefore serves within seconds.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from indexes.config import BuildConfig
from indexes.storage.layout import newest_generation
from model.artifact import Kind, open_artifact, saved
from model.config import EvaluateConfig, Objective, ShopConfig, StageConfig, TrainConfig
from model.console import say
from model.data.prepare_config import PrepareConfig
from model.errors import ArtifactError
from model.plain_file import file_digest
from service.engine.engine import Engine
from service.middleware.api_keys import Keys

from . import demo_questions
from .settings import DemoConfig, ServeConfig

OBJECTIVES: tuple[Objective, ...] = ("rcml", "clip", "blind")
"""Objectives, with one network trained for each; the network of the first objective is served."""

PURPOSES = {
    "shop": "Draw a shop whose customers form ten groups, which choose by colour, by pattern or by emblem. rcml is not "
    "told so: it gets only items and purchases, as from any other shop.",
    "prepared": "Find customers who buy alike. Each group becomes a relation, described in words, and what its "
    "customers often buy together becomes its pairs.",
    "rcml": "Train the network. For each relation, it learns which words and which parts of a picture matter.",
    "clip": "For comparison, train CLIP: one vector for each item, without purchases.",
    "blind": "For comparison, train the same network on the same pairs, but do not tell it the relation.",
    "report": "Compare the three on items that none of them has seen: does the relation matter?",
    "index": "Store a vector of each item under each relation, so that a question takes milliseconds.",
}
"""What each stage does and why, by the name of the folder that it writes, in their order."""

Config = TypeVar("Config", bound=StageConfig)


def run(config: DemoConfig) -> str:
    """Run the incomplete stages, then serve (or stop, with `--no-serve`), and return a closing line.

    Raises:
        RcmlError: a stage cannot run.
    """
    out = config.out
    if not config.serve:
        make_all(config)
        return f"The sample shop is ready. Run `rcml serve --index {out / 'index'}` to serve it."
    serving = ServeConfig(
        index=out / "index",
        report=out / "report",
        host=config.host,
        port=config.port,
        unguarded=config.unguarded,
        log_format="text",  # the banner prints commands to paste, which JSON would escape
    )
    Keys.open(serving)  # report an invalid or missing key now, not after minutes of work
    make_all(config)
    from .serve import serve

    return serve(serving, banner)


def make_all(config: DemoConfig) -> None:
    """Run every stage from the shop to the index and write the artifacts to `config.out`."""
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
            efficiency=False,  # what the networks cost says nothing about relations
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
    """Return three questions to the served index, with their answers."""
    return demo_questions.lines(engine.index.reader(), url)


def _stage(
    kind: Kind, config: Config, make: Callable[[Config], str], parents: Mapping[str, str] | None = None
) -> str:
    """Run a stage, unless its existing artifact is up to date, and return the digest of the artifact."""
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
    number = 1 + list(PURPOSES).index(config.out.name)
    say(f"[{number}/{len(PURPOSES)}] {PURPOSES[config.out.name]}")
    say(make(config))
    return open_artifact(newest_generation(config.out) if kind == "index" else config.out, kind).digest


# Each stage imports its modules when it runs, so a second run, which only serves, imports none of them.


def _make_shop(config: ShopConfig) -> str:
    from model.sample_shop.generate import make_shop

    return make_shop(config)


def _prepare(config: PrepareConfig) -> str:
    from model.data.prepare import prepare

    return prepare(config)


def _train(config: TrainConfig) -> str:
    from model.training.run_state import discard_run
    from model.training.train import train

    # Never resume: the interrupted run may have had other options, and retraining takes only about a minute.
    discard_run(config.out)
    return train(config)


def _evaluate(config: EvaluateConfig) -> str:
    from model.evaluation.evaluate import evaluate

    return evaluate(config)


def _index(config: BuildConfig) -> str:
    from .build_index import build

    return build(config)
