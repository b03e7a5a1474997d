"""`ablation.md` of a study, made from the figures in `ablation.json`."""

from model.evaluation.report.all_systems import difference, with_interval
from model.markdown_table import table
from model.similarity import Similarity

from .ablation_report import AblationReport, VariantFigures

VIEWS_APART = tuple(similarity for similarity in Similarity if similarity is not Similarity.AVG)


def ablation_markdown(report: AblationReport) -> str:
    """Return the content of `ablation.md`."""
    sections = (_summary(report), _figures(report), _drops(report), _trainings(report), _left_out(report))
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _summary(report: AblationReport) -> list[str]:
    name = f"Sweep: {report.study}" if report.sweeps else report.study.capitalize()
    times = "once" if report.seeds == 1 else f"{report.seeds} times, with different seeds"
    return [
        f"# {name}",
        "",
        f"Every variant was trained {times}, and answers the same {report.queries:,} queries about {report.items:,} "
        f"items that training never saw, with {report.candidates} candidates each. Intervals and p-values are over "
        "items and do not cover the differences between trainings.",
        "",
        "![Hit@5 of the variants](ablation.png)",
    ]


def _figures(report: AblationReport) -> list[str]:
    chance = report.chance
    return [
        "## Figures",
        "",
        "Hit@5 by similarity (95 % interval for AVG), Top-3 accuracy of the relation type with calibrated "
        "probabilities, and accuracy of the validity.",
        "",
        *table(
            ["variant", "AVG", *VIEWS_APART, "relation type", "validity"],
            [
                *(_row(variant) for variant in report.variants),
                [
                    "chance",
                    *[f"{chance.hit_at_5:.3f}"] * len(Similarity),
                    f"{chance.relation_type_top_3:.3f}",
                    f"{chance.validity_accuracy:.3f}",
                ],
            ],
        ),
    ]


def _row(variant: VariantFigures) -> list[str]:
    return [
        variant.name,
        with_interval(variant.hit_at_5[Similarity.AVG]),
        *(f"{variant.hit_at_5[similarity].value:.3f}" for similarity in VIEWS_APART),
        f"{variant.relation_type_top_3:.3f}",
        f"{variant.validity_accuracy:.3f}",
    ]


def _drops(report: AblationReport) -> list[str]:
    reference = next(one for one in report.variants if one.name == report.reference)
    whole = reference.hit_at_5[Similarity.AVG].value
    return [
        f"## Drop against {report.reference}",
        "",
        f"AVG Hit@5 of {report.reference} minus that of the variant, with 95 % interval and p (sign-flip test over "
        "items, adjusted for the number of variants). A positive drop means that the variant is worse.",
        "",
        *table(
            ["variant", "options", "drop", f"share of {report.reference}"],
            (
                [
                    one.name,
                    f"`{one.options}`",
                    difference(one.drop),
                    f"{one.drop.difference.value / whole:+.1%}" if whole else "",
                ]
                for one in report.variants
                if one.drop is not None
            ),
        ),
    ]


def _trainings(report: AblationReport) -> list[str]:
    seeds = [str(one.seed) for one in report.variants[0].trained]
    return [
        "## Trainings",
        "",
        "AVG Hit@5 of each seed; steps and seconds are means.",
        "",
        *table(
            ["variant", *(f"seed {seed}" for seed in seeds), "steps", "seconds"],
            (
                [
                    one.name,
                    *(f"{trained.hit_at_5:.3f}" for trained in one.trained),
                    f"{one.steps:,}",
                    f"{one.seconds:,.0f}",
                ]
                for one in report.variants
            ),
        ),
    ]


def _left_out(report: AblationReport) -> list[str]:
    if not report.left_out:
        return []
    return ["## Left out", "", *(f"- **{name}**: {reason}." for name, reason in report.left_out.items())]
