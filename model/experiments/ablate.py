"""`rcml ablate`: trains the variants of a study and compares them with the reference on the same test items.

Every training writes a checkpoint to `OUT/runs`. A checkpoint with the same options and the same prepared data is
reused, and an interrupted training continues from its last save. The same command therefore finishes an interrupted
study.
"""

import json
from typing import Any

import numpy as np

from model.artifact import open_artifact, saved
from model.checkpoint.checkpoint import Checkpoint
from model.config import AblateConfig, EvaluateConfig, TrainConfig
from model.console import say
from model.data.prepared_data import Prepared
from model.durable_files import make_folder, storing
from model.encoder.encoder import Encoder
from model.errors import ArtifactError, InputError
from model.evaluation.evaluate import chance_figures
from model.evaluation.evaluation_set import EvaluationSet, make_evaluation_set
from model.evaluation.network_figures import Answers, network_figures
from model.evaluation.tables import Judge
from model.similarity import Similarity
from model.training.run_state import INCIDENTAL_OPTIONS, can_resume, discard_run
from model.training.train import train

from .ablation_markdown import ablation_markdown
from .ablation_plots import draw_ablation
from .ablation_report import AblationReport, TrainedVariant, VariantFigures
from .studies import Variant, Variants, variants_of

REPORT_FILE = "ablation.json"


def ablate(config: AblateConfig) -> str:
    """Run the study and return its closing summary.

    Raises:
        ArtifactError: the prepared data is missing or damaged, or another run is training a variant.
        InputError: `config.out` belongs to something else; or the prepared data or an option cannot be used.
        TrainingError: the loss of a variant, or its gradient, is not finite.
    """
    _refuse_other_content(config)
    prepared = Prepared.open(config.prepared[0])
    variants = variants_of(config)
    seeds = range(config.seed, config.seed + config.seeds)
    trainings = {variant: [variant.training(config, seed) for seed in seeds] for variant in variants.tried}
    exam = EvaluateConfig(
        checkpoint=tuple(one.out for several in trainings.values() for one in several),
        prepared=config.prepared[0],
        out=config.out,
        device=config.device,
    )
    questions = make_evaluation_set(
        prepared, exam
    )  # before hours of training: the test split may be unusable
    answers = {
        variant: [_answers(_trained(one, prepared), questions, exam) for one in several]
        for variant, several in trainings.items()
    }
    report = make_ablation_report(config, variants, answers, questions, exam)
    with storing(config.out):
        draw_ablation(report, config.out)
        (config.out / "ablation.md").write_text(ablation_markdown(report), encoding="utf-8")
        partial = config.out / f".{REPORT_FILE}.partial"
        partial.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.rename(config.out / REPORT_FILE)
    return f"Compared {len(answers)} variants on {len(questions.texts)} unseen items. Report in {config.out}"


def make_ablation_report(
    config: AblateConfig,
    variants: Variants,
    answers: dict[Variant, list[Answers]],
    questions: EvaluationSet,
    exam: EvaluateConfig,
) -> AblationReport:
    """Average the figures of each variant over its seeds, and compare AVG Hit@5 with that of the reference."""
    judge = Judge.of(variants.reference, questions.queries.item, exam.seed)
    drops = judge.comparisons(
        {
            variant.name: np.mean([one.hits[Similarity.AVG] for one in own], axis=0)
            for variant, own in answers.items()
        }
    )
    found = []
    for variant, own in answers.items():
        figures = network_figures(own, questions, judge.bootstrap)
        found.append(
            VariantFigures(
                name=variant.name,
                options=variant.options,
                value=variant.value,
                hit_at_5=figures.hit_at_5,
                relation_type_top_3=figures.relation_type_top_3_calibrated[Similarity.AVG],
                validity_accuracy=figures.validity_accuracy,
                drop=drops.get(variant.name),
                steps=figures.steps,
                seconds=figures.seconds,
                trained=tuple(_trained_variant(one, config.seed + place) for place, one in enumerate(own)),
            )
        )
    return AblationReport(
        study=config.study,
        reference=variants.reference,
        prepared=own[0].checkpoint.manifest.parents["prepared"],
        items=len(questions.texts),
        queries=len(questions.queries.item),
        candidates=exam.candidates,
        chance=chance_figures(exam.candidates, len(questions.known)),
        variants=tuple(found),
        left_out=dict(variants.left_out),
    )


def _trained_variant(answers: Answers, seed: int) -> TrainedVariant:
    checkpoint = answers.checkpoint
    return TrainedVariant(
        path=str(checkpoint.path),
        digest=checkpoint.manifest.digest,
        seed=seed,
        hit_at_5=float(answers.hits[Similarity.AVG].mean()),
    )


def _refuse_other_content(config: AblateConfig) -> None:
    """Raise an error if `config.out` contains something other than this study, and create it if it is absent.

    Raises:
        InputError: `config.out` is a file, another folder, or the folder of another study.
    """
    out = config.out
    if out.exists() and not (out / "runs").is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} exists and was not written by `rcml ablate`. Choose another --out, or remove this file or folder."
        )
    report = out / REPORT_FILE
    study = json.loads(report.read_text("utf-8")).get("study") if report.is_file() else config.study
    if study != config.study:
        raise InputError(
            f"{out} contains the study {study}. Choose another --out for --study {config.study}."
        )
    make_folder(out / "runs")


def _trained(config: TrainConfig, prepared: Prepared) -> Checkpoint:
    """Return the checkpoint of `config`; train it unless it is already there."""
    parents = {"prepared": prepared.manifest.digest}
    try:
        manifest = open_artifact(config.out, "checkpoint")
    except ArtifactError:
        pass
    else:
        trained_with = (config.out / "config.json").read_text(encoding="utf-8")
        if _options(trained_with) == _options(saved(config)) and manifest.parents == parents:
            say(f"Reusing {config.out}.")
            return Checkpoint.open(config.out)
        say(f"The options or the data of {config.out} have changed. It is trained again.")
    resume = can_resume(config, prepared.manifest.digest)
    if not resume:
        discard_run(config.out)
    say(train(config.model_copy(update={"resume": resume})))
    return Checkpoint.open(config.out)


def _options(config: str) -> dict[str, Any]:
    """Return the options in the text of a `config.json` that change what the network learns."""
    return {name: value for name, value in json.loads(config).items() if name not in INCIDENTAL_OPTIONS}


def _answers(checkpoint: Checkpoint, questions: EvaluationSet, exam: EvaluateConfig) -> Answers:
    """Encode the test items with one checkpoint and put the paper's questions to it."""
    encoder = Encoder.from_pretrained(checkpoint.path, exam.device)
    return Answers.of(checkpoint, encoder.encode_part(questions.texts, questions.pictures), questions)
