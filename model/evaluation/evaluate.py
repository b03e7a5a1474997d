"""`rcml evaluate`: measures checkpoints on test items and compares them with other networks and with baselines.

All systems answer the same evaluation set (`evaluation_set.py`). `report.json` contains every figure (`figures.py`;
docs/artifacts.md documents its keys).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from model.artifact import write_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.config import EvaluateConfig
from model.console import progress
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.embeddings.attention_entropy import AttentionEntropy
from model.encoder.out_of_domain import is_out_of_domain, refuse_seen, warning
from model.errors import InputError, MismatchError
from model.network.devices import machine_name
from model.similarity import Similarity
from model.systems.families import open_system
from model.systems.system import System

from .baselines.assembly import Baselines
from .efficiency import Costs, EfficiencySample, Subject
from .evaluation_set import EvaluationSet, make_evaluation_set
from .figures import ChanceFigures, DataCounts, EfficiencyTable, EvaluationReport, NetworkFigures, Role
from .measurement import Measurement
from .metrics import HIT_AT, TOP_RELATIONS, Bootstrap, hit_at, log_loss
from .network_figures import Answers, checkpoint_figures, figures_by_relation, mean_hits, network_figures
from .network_results import NetworkResults, measure_networks
from .report.documents import write_documents
from .scoring import NetworkScorer, PlacedScorer
from .tables import (
    catalogue_tables,
    chance_tests,
    relation_type_table,
    retrieval_tables,
    sensitivity_table,
    validity_table,
)
from .verdict import verdict

TOKENS = "tokens"
"""Folder in the draft of the report with the tokens that checkpoints share."""


def evaluate(config: EvaluateConfig) -> str:
    """Run the stage and return its closing summary, the verdict.

    Raises:
        ArtifactError: a checkpoint or the prepared data is missing or damaged, or they do not belong together.
        InputError: there are no test pairs or too few test items, or a checkpoint is given twice.
    """
    prepared = Prepared.open(config.prepared)
    prepared.require_pictures()
    questions = make_evaluation_set(prepared, config)
    checkpoints = open_checkpoints(config, prepared)
    parents = {"prepared": prepared.manifest.digest} | _parents(checkpoints)
    with write_artifact(config.out, "report", config, parents) as draft:
        costs = Costs(EfficiencySample.of(questions, prepared.relations)) if config.efficiency else None
        others = measure_systems(config, prepared, questions, costs)
        networks = measure_networks(checkpoints, questions, prepared, config, costs, draft.path / TOKENS)
        efficiency = None if costs is None else costs.table(machine_name(config.device), list(checkpoints))
        report = make_report(prepared, questions, networks, others, efficiency, config)
        report = _with_domain(report, checkpoints, prepared)
        report.save(draft.path)
        examples = next(iter(networks.values()))[0].examples
        assert examples is not None, "the first network has examples"
        write_documents(report, draft.path, examples, config.seed)
    domain = " Out of domain." if report.out_of_domain else ""
    return f"Evaluated on {len(questions.texts)} unseen items.{domain} {report.verdict.sentence} Report in {config.out}"


def _with_domain(
    report: EvaluationReport, checkpoints: Mapping[Role, Sequence[Checkpoint]], prepared: Prepared
) -> EvaluationReport:
    """Say in the report which checkpoints were trained on other domains."""
    every = [one for several in checkpoints.values() for one in several]
    warnings = [warning(one, prepared) for one in every if is_out_of_domain(one, prepared)]
    if not warnings:
        return report
    found = report.verdict.model_copy(update={"warnings": (*warnings, *report.verdict.warnings)})
    tested = next(iter(checkpoints.values()))
    outside = any(is_out_of_domain(one, prepared) for one in tested)
    return report.model_copy(update={"verdict": found, "out_of_domain": outside})


def open_checkpoints(config: EvaluateConfig, prepared: Prepared) -> dict[Role, list[Checkpoint]]:
    """Open the checkpoints by role, the tested ones first; their role is their training objective.

    Raises:
        ArtifactError: a checkpoint is missing or damaged.
        MismatchError: a checkpoint was trained on other data, or with another objective than its role requires.
        InputError: the tested checkpoints already have the role of a rival, or a checkpoint is given twice.
    """
    opened = {
        option: [_open(option, path, prepared) for path in paths]
        for option, paths in (
            ("checkpoint", config.checkpoint),
            ("blind", config.blind),
            ("clip", config.clip),
            ("rivals", config.rivals),
            ("against", config.against),
        )
    }
    tested = opened["checkpoint"]
    objective = tested[0].metrics.objective
    for checkpoint in tested:
        if checkpoint.metrics.objective != objective:
            raise MismatchError(
                f"{checkpoint.path} was trained with --objective {checkpoint.metrics.objective}, but "
                f"{tested[0].path} with --objective {objective}. The checkpoints in --checkpoint may differ only in "
                "their seed; pass the other one with --against."
            )
    roles: dict[Role, list[Checkpoint]] = {objective: tested}
    rivals: tuple[Role, ...] = ("blind", "clip", "against")
    for role in rivals:
        if not opened[role]:
            continue
        if role == objective:
            raise InputError(
                f"--checkpoint {tested[0].path} was itself trained with --objective {role}. Pass the checkpoint in "
                f"--{role} with --against."
            )
        roles[role] = opened[role]
    for rival in opened["rivals"]:
        if rival.metrics.objective == objective:
            raise InputError(
                f"--rivals {rival.path} was trained with --objective {objective}, like --checkpoint "
                f"{tested[0].path}. Pass it with --checkpoint if it differs only in its seed, otherwise with --against."
            )
        roles.setdefault(rival.metrics.objective, []).append(rival)
    for role, several in roles.items():
        _refuse_repeated(role, several)
    return roles


def _refuse_repeated(role: Role, checkpoints: Sequence[Checkpoint]) -> None:
    seen: dict[str, Path] = {}
    for checkpoint in checkpoints:
        digest = checkpoint.manifest.digest
        if digest in seen:
            raise InputError(
                f"{seen[digest]} and {checkpoint.path} are the same checkpoint, and would count as two trainings of "
                f"{role}. Pass it once."
            )
        seen[digest] = checkpoint.path


def _open(option: str, path: Path, prepared: Prepared) -> Checkpoint:
    checkpoint = Checkpoint.open(path)
    if is_out_of_domain(checkpoint, prepared):
        refuse_seen(checkpoint, prepared)
    objective = checkpoint.metrics.objective
    if option in ("clip", "blind") and objective != option:
        raise MismatchError(
            f"--{option} {path} was trained with --objective {objective}. Pass a checkpoint that was trained with "
            f"--objective {option}."
        )
    return checkpoint


def _parents(checkpoints: Mapping[Role, Sequence[Checkpoint]]) -> dict[str, str]:
    """Return the digests by name; the tested checkpoints are `rcml`, `rcml-2`, ..., whatever their objective.

    A rival with the objective `rcml` is then `rcml-rival`.
    """
    names = ["rcml", *("rcml-rival" if role == "rcml" else role for role in list(checkpoints)[1:])]
    return {
        name if number == 1 else f"{name}-{number}": checkpoint.manifest.digest
        for name, several in zip(names, checkpoints.values(), strict=True)
        for number, checkpoint in enumerate(several, start=1)
    }


def measure_systems(
    config: EvaluateConfig, prepared: Prepared, questions: EvaluationSet, costs: Costs | None
) -> dict[str, tuple[Measurement, str]]:
    """Measure the systems in `config`, before any network: a name that cannot be opened is reported at once.

    Each label is mapped to the results and to the meaning, a sentence.

    Raises:
        InputError: a system cannot be opened.
    """
    found: dict[str, tuple[Measurement, str]] = {}
    for spec in progress(config.systems, "measuring other systems", len(config.systems)):
        system = open_system(spec, config.device)
        meaning = system_meaning(system, len(questions.texts), len(prepared.relations))
        label = system_label(spec, found)
        found[label] = measure_system(label, system, prepared, questions, costs), meaning
    return found


def measure_system(
    label: str, system: System, prepared: Prepared, questions: EvaluationSet, costs: Costs | None
) -> Measurement:
    """Encode the items with a system that was not trained here, by the protocol of section 4.3.1, and question it."""
    encoding = system.encode(questions.texts, questions.pictures, prepared.relations)
    if costs is not None:
        costs.measure(label, Subject.of_system(system), encoding)
    training = (
        system.encode(questions.training_texts, questions.training_pictures, prepared.relations)
        if questions.training_texts
        else None
    )
    return Measurement.of(NetworkScorer(encoding, Similarity.AVG, training), questions)


def system_label(spec: str, taken: Collection[str]) -> str:
    """Return the name of a system in tables and plots: its family and the last part of its source, if that is free."""
    family, _, source = spec.partition(":")
    label = f"{family}:{source.rstrip('/').rpartition('/')[2]}"
    return spec if label in taken else label


def system_meaning(system: System, items: int, relations: int) -> str:
    """Describe a system and its cost, which is the number of inputs that its towers encode."""
    passes = system.passes(items, relations)
    return (
        f"as released, with the text of the relation before that of the item; {system.parameters:,} parameters, "
        f"{passes.text:,} texts and {passes.image:,} pictures encoded for {items:,} items and {relations} relations"
    )


def make_report(
    prepared: Prepared,
    questions: EvaluationSet,
    results: Mapping[Role, Sequence[NetworkResults]],
    others: Mapping[str, tuple[Measurement, str]],
    efficiency: EfficiencyTable | None,
    config: EvaluateConfig,
) -> EvaluationReport:
    """Average the results of each network over its checkpoints, measure the baselines, and compare."""
    tested = next(iter(results))
    answers = {role: [one.answers for one in own] for role, own in results.items()}
    measured = {role: [one.measurement for one in own] for role, own in results.items()}
    entropies = [one.entropy for one in results[tested] if one.entropy is not None]
    entropy = AttentionEntropy.mean(entropies) if entropies else None
    bootstrap = Bootstrap.of(questions.queries.item, np.random.default_rng(config.seed))
    networks = {role: network_figures(own, questions, bootstrap) for role, own in answers.items()}
    baselines = Baselines.fit(prepared, config.seed)
    systems: dict[str, Measurement] = {role: Measurement.mean(own) for role, own in measured.items()}
    meanings = dict(baselines.meanings)
    for name, (measurement, meaning) in others.items():
        systems[name], meanings[name] = measurement, meaning
    for baseline in progress(baselines.retrieval, "measuring baselines", len(baselines.retrieval)):
        systems[baseline.name] = Measurement.of(PlacedScorer(baseline, questions.rows), questions)
    retrieval = retrieval_tables(tested, systems, questions, config.seed)
    types, losses = _relation_types(answers, baselines, questions)
    relation_type = relation_type_table(tested, types, losses, questions, config.seed)
    correct: dict[str, Float[ndarray, " claims"]] = {
        role: np.mean([one.correct(questions) for one in own], axis=0) for role, own in answers.items()
    }
    chance = chance_figures(config.candidates, len(questions.known))
    return EvaluationReport(
        verdict=verdict(tested, retrieval, relation_type, entropy),
        data=data_counts(questions, config.candidates),
        chance=chance,
        networks=networks,
        against_chance=chance_tests(
            tested, mean_hits(answers[tested]), chance.hit_at_5, questions.queries, config.seed
        ),
        ratios=_ratios(networks, tested),
        relations=figures_by_relation(answers[tested], questions),
        tested=tested,
        checkpoints={
            role: tuple(
                checkpoint_figures(answer, measurement, questions)
                for answer, measurement in zip(own, measured[role], strict=True)
            )
            for role, own in answers.items()
        },
        baselines=meanings,
        retrieval=retrieval,
        catalogue=catalogue_tables(tested, systems, questions, prepared.relations, config.seed),
        relation_type=relation_type,
        validity=validity_table(tested, correct, questions, config.seed),
        sensitivity=sensitivity_table(systems, questions),
        attention_entropy=entropy,
        efficiency=efficiency,
    )


def _relation_types(
    answers: Mapping[Role, Sequence[Answers]], baselines: Baselines, questions: EvaluationSet
) -> tuple[dict[str, Float[ndarray, " edges"]], dict[str, float]]:
    """Return for each system whether the relation of each edge is among its 3 most likely, and its log-loss."""
    probabilities: dict[str, list[Float[ndarray, "edges known"]]] = {
        role: [one.relation_types(Similarity.AVG).after for one in own] for role, own in answers.items()
    }
    rows: Int[ndarray, " positions"] = questions.rows
    edges = EdgeTable(rows[questions.edges.a], rows[questions.edges.b], questions.edges.relation)
    for name, found in baselines.relation_types(edges, questions.known).items():
        probabilities[name] = [found]
    truth = questions.truth
    return (
        {
            name: np.mean([hit_at(TOP_RELATIONS, one, truth) for one in own], axis=0)
            for name, own in probabilities.items()
        },
        {name: float(np.mean([log_loss(one, truth) for one in own])) for name, own in probabilities.items()},
    )


def data_counts(questions: EvaluationSet, candidates: int) -> DataCounts:
    """Count what is asked in the paper's three tasks."""
    return DataCounts(
        items=len(questions.texts),
        edges=len(questions.edges),
        queries=len(questions.queries.item),
        claims=len(questions.claims.valid),
        relations=len(questions.known),
        candidates=candidates,
    )


def chance_figures(candidates: int, relations: int) -> ChanceFigures:
    """Compute the expected figures of random guesses from the numbers of candidates and relations."""
    return ChanceFigures(
        hit_at_5=min(1.0, HIT_AT / candidates),
        relation_type_top_3=min(1.0, TOP_RELATIONS / relations),
        relation_type_log_loss=float(np.log(relations)),
        validity_accuracy=0.5,
        validity_auc=0.5,
    )


def _ratios(networks: Mapping[Role, NetworkFigures], tested: Role) -> dict[Role, float]:
    """Divide AVG Hit@5 of the tested network by AVG Hit@5 of each rival network."""
    own = networks[tested].hit_at_5[Similarity.AVG].value
    return {
        role: own / network.hit_at_5[Similarity.AVG].value
        for role, network in networks.items()
        if role != tested
    }
