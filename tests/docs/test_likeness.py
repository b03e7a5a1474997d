"""Tests that the checks of the documentation detect errors."""

from pathlib import Path

import httpx
import pytest

from .commands import Shell
from .documents import blocks, examples
from .likeness import excerpt, unlike

RESULT = {"rank": 1, "score": 0.5, "item": {"item_id": "cot", "title": "Cot"}}
PROBLEM = {
    "type": "urn:rcml:problem:unknown-item",
    "detail": "No item has the ID 'a'.",
    "instance": "/retrieve",
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Shell:
    return Shell(tmp_path, httpx.Client(), {})


@pytest.mark.parametrize(
    "got",
    [
        {"how": "indexed", "results": [{**RESULT, "score": 0.25}]},
        {"how": "indexed", "results": [{**RESULT, "item": {"item_id": "mug", "title": "Mug"}}]},
    ],
)
def test_scores_and_items_may_differ(got: object) -> None:
    assert unlike({"how": "indexed", "results": [RESULT]}, got) == []


@pytest.mark.parametrize(
    "got",
    [
        {"how": "indexed", "results": []},
        {"how": "rescored", "results": [RESULT]},
        {"how": "indexed", "results": [{**RESULT, "rank": 2}]},
        {"how": "indexed", "results": [{**RESULT, "score": None}]},
        {"how": "indexed", "results": [{**RESULT, "score": True}]},
        {"how": "indexed", "results": [RESULT], "more": 1},
        {"how": "indexed"},
    ],
)
def test_reports_different_structure_count_or_method(got: object) -> None:
    assert len(unlike({"how": "indexed", "results": [RESULT]}, got)) == 1


def test_problem_documents_must_match_except_for_known_ids() -> None:
    assert unlike(PROBLEM, {**PROBLEM, "detail": "No item has the ID 'b'."}) != []
    shown = {**PROBLEM, "known": ["a"], "detail": "There is no relation b. Known relations: a."}
    assert (
        unlike(shown, {**shown, "known": ["c"], "detail": "There is no relation b. Known relations: c."})
        == []
    )
    assert unlike(shown, {**shown, "detail": "There is no relation d. Known relations: a."}) != []


@pytest.mark.parametrize(
    "command", ["rm -r var", "make tea", "pip install 'rcml[tea]'", "docker compose --profile tea up"]
)
def test_rejects_unknown_command(nowhere: Shell, command: str) -> None:
    with pytest.raises(AssertionError):
        nowhere.run(command)


@pytest.mark.parametrize("command", ["rcml serve --tea", "rcml brew", "rcml index build --kind tea"])
def test_rejects_unknown_option_verb_or_value(nowhere: Shell, command: str) -> None:
    with pytest.raises(Exception, match=r"tea|brew"):
        nowhere.run(command)


def test_rejects_public_server_without_keys(nowhere: Shell) -> None:
    with pytest.raises(Exception, match="Without an API key"):
        nowhere.run("rcml serve --index var/index --host 0.0.0.0")


def test_finds_nested_and_indented_blocks_and_their_responses(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text(
        "- a list\n\n  ```console\n  $ curl x\n  ```\n\n`404 a/b`\n\n```json\n{}\n```\n\n    indented\n"
    )
    asked, answer, indented = blocks(document)
    assert (asked.line, asked.kind, asked.text) == (3, "console", "$ curl x\n")
    assert (answer.answered, indented.kind) == ((404, "a/b"), "")
    assert next(examples(document)).answer == answer


def test_excerpt_keeps_only_the_shown_fields() -> None:
    shown = {"results": [{"rank": 1, "item": {"title": "Cot"}}]}
    got = {"version": "a", "results": [{"rank": 1, "score": 0.5, "item": {"item_id": "mug", "title": "Mug"}}]}
    assert excerpt(shown, got) == {"results": [{"rank": 1, "item": {"title": "Mug"}}]}


def test_reports_a_shown_field_that_the_response_lacks() -> None:
    shown = {"results": [RESULT], "next_cursor": 3}
    assert len(unlike(shown, excerpt(shown, {"results": [RESULT], "more": 1}))) == 1
