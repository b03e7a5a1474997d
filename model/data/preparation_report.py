"""The report of `rcml prepare`: what was kept, dropped and related, as JSON and as Markdown."""

from collections import Counter
from typing import Any

from model.records import Edge, Item, Relation, Split


def prepared_report(
    items: list[Item],
    splits: list[Split],
    relations: list[Relation],
    edges: list[Edge],
    log_counts: dict[str, Any],
    set_aside: dict[str, str],
) -> dict[str, Any]:
    users = log_counts.get("users_of_relation", {})
    of_pair = Counter((edge.item_a, edge.item_b) for edge in edges)
    return {
        "items": {
            "kept": len(items),
            "text_only": sum(not item.picture for item in items),
            **{
                split.value: sum(
                    of == split and bool(item.picture) for item, of in zip(items, splits, strict=True)
                )
                for split in Split
            },
        },
        "log": {name: value for name, value in log_counts.items() if name != "users_of_relation"},
        "pairs": len(of_pair),
        "pairs_of_one_relation": sum(count == 1 for count in of_pair.values()),
        "relations": [
            {
                "relation": relation.relation_id,
                "description": relation.description,
                "users": users.get(relation.relation_id),
                "items": len({item for edge in own for item in (edge.item_a, edge.item_b)}),
                "pairs": {split.value: sum(edge.split == split for edge in own) for split in Split},
            }
            for relation in relations
            if not relation.intra
            for own in [[edge for edge in edges if edge.relation_id == relation.relation_id]]
        ],
        "set_aside": set_aside,
    }


def in_markdown(report: dict[str, Any]) -> str:
    items, log = report["items"], report["log"]
    of_words = f", {items['text_only']} of words alone, for the index only" if items["text_only"] else ""
    lines = [
        "# Prepared data",
        "",
        f"{items['kept']} items: {items['train']} to train on, {items['validation']} for early stopping, "
        f"{items['test']} for evaluation{of_words}. {report['pairs']} related pairs within the parts, "
        f"{report['pairs_of_one_relation']} of them under one relation only.",
        "",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in log.items()),
        "",
        "| relation | users | items | train pairs | validation pairs | test pairs |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| `{row['relation']}` | {'' if row['users'] is None else row['users']} | {row['items']} "
            f"| {row['pairs']['train']} | {row['pairs']['validation']} | {row['pairs']['test']} |"
            for row in report["relations"]
        ),
        "",
        *(f"- **{row['relation']}**: {row['description']}" for row in report["relations"]),
        "",
        "## Set aside",
        "",
        *(f"- `{item_id}`: {reason}" for item_id, reason in report["set_aside"].items()),
    ]
    if not report["set_aside"]:
        lines.append("Nothing.")
    return "\n".join(lines) + "\n"
