"""What keeps the documentation true can tell when it is not."""

from pathlib import Path

import httpx
import pytest

from .commands import Shell
from .documents import blocks, examples
from .likeness import unlike

RESULT = {"rank": 1, "score": 0.5, "item": {"item_id": "cot", "title": "Cot"}}
PROBLEM = {
    "type": "urn:rcml:problem:unknown-item",
    "detail": "No item has the id 'a'.",
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
def test_another_score_and_another_item_are_alike(got: object) -> None:
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
def test_another_form_another_count_and_another_way_are_not(got: object) -> None:
    assert len(unlike({"how": "indexed", "results": [RESULT]}, got)) == 1


def test_a_problem_is_told_word_by_word_but_for_the_ids_there_are() -> None:
    assert unlike(PROBLEM, {**PROBLEM, "detail": "No item has the id 'b'."}) != []
    shown = {**PROBLEM, "known": ["a"], "detail": "There is no relation b. Known relations: a."}
    assert (
        unlike(shown, {**shown, "known": ["c"], "detail": "There is no relation b. Known relations: c."})
        == []
    )
    assert unlike(shown, {**shown, "detail": "There is no relation d. Known relations: a."}) != []


@pytest.mark.parametrize(
    "command", ["rm -r var", "make tea", "pip install 'rcml[tea]'", "docker compose --profile tea up"]
)
def test_a_command_that_is_not_known_is_no_example(nowhere: Shell, command: str) -> None:
    with pytest.raises(AssertionError):
        nowhere.run(command)


@pytest.mark.parametrize("command", ["rcml serve --tea", "rcml brew", "rcml index build --kind tea"])
def test_options_and_values_that_there_are_not_are_refused(nowhere: Shell, command: str) -> None:
    with pytest.raises(Exception, match=r"tea|brew"):
        nowhere.run(command)


def test_a_server_that_would_be_open_to_all_is_no_example(nowhere: Shell) -> None:
    with pytest.raises(Exception, match="Without an API key"):
        nowhere.run("rcml serve --index var/index --host 0.0.0.0")


def test_blocks_are_found_wherever_they_stand_with_their_answers(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text(
        "- a list\n\n  ```console\n  $ curl x\n  ```\n\n`404 a/b`\n\n```json\n{}\n```\n\n    indented\n"
    )
    asked, answer, indented = blocks(document)
    assert (asked.line, asked.kind, asked.text) == (3, "console", "$ curl x\n")
    assert (answer.answered, indented.kind) == ((404, "a/b"), "")
    assert next(examples(document)).answer == answer
