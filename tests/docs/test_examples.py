"""Tests that run every example of README.md and docs/ in reading order and compare the responses."""

import re
import time
from pathlib import Path

import httpx
import pytest

from service.cli import CONFIGS
from service.http.route_rules import ROUTE_RULES
from service.settings import ENVIRONMENT_PREFIX, ServeConfig
from tests.model.checkpoint.fake_hub import fake_hub

from .commands import SHOWN, Shell, composes, extras_of, targets, values
from .documents import (
    DOCUMENTS,
    KINDS,
    ROOT,
    Block,
    Example,
    anchors,
    blocks,
    examples,
    is_answer,
    links,
    spans,
)
from .likeness import excerpt, unlike

EXAMPLES = [example for document in DOCUMENTS for example in examples(document)]
PRESENT = [document for document in DOCUMENTS if document.name != "decisions.md"]
"""Documents that describe only the current state; docs/decisions.md also describes earlier states."""

OF_OTHERS = frozenset({"--nproc-per-node", "--no-python", "--profile"})
"""Options of torchrun and of docker compose."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_block_has_known_kind(document: Path) -> None:
    assert [str(block) for block in blocks(document) if block.kind not in KINDS] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_response_follows_its_request(document: Path) -> None:
    answers = {example.answer for example in examples(document)}
    assert [str(block) for block in blocks(document) if is_answer(block) and block not in answers] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_gives_shown_response(
    example: Example, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(shell.folder)
    if example.block.kind == "python":
        run_python(example.block, shell, monkeypatch, tmp_path)
        return
    answers = shell.do(example.block)
    *before, last = answers or [None]
    assert [str(answer.url) for answer in before if answer is not None and answer.is_error] == []
    if example.answer is not None:
        assert last is not None, "the document shows a response, but the command sent no request"
        assert differences(last, example.answer) == []
    elif last is not None:
        assert last.is_success, last.text
    if last is not None and last.status_code == 202:
        wait_until_done(shell.service, last.headers["Location"])


def differences(answer: httpx.Response, shown: Block) -> list[str]:
    """Return the differences between a response and the one shown."""
    status, media_type = shown.answered or (200, None)
    if answer.status_code != status:
        return [f"the status is {answer.status_code}, but the document shows {status}: {answer.text}"]
    if media_type not in (None, answer.headers["Content-Type"]):
        return [f"the media type is {answer.headers['Content-Type']}, but the document shows {media_type}"]
    expected, got = values(shown.kind, shown.text), values(shown.kind, answer.text)
    return unlike(expected, excerpt(expected, got) if shown.is_excerpt else got)


def wait_until_done(service: httpx.Client, path: str) -> None:
    """Poll a background job until it has finished, and assert that it succeeded."""
    while (told := service.get(path).json())["state"] in ("waiting", "embedding"):
        time.sleep(0.02)
    assert told["state"] == "indexed", told


def run_python(block: Block, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run a program with the real URL of the service and with a fake local Hub."""
    program = block.text.replace(SHOWN, str(shell.service.base_url).rstrip("/"))
    with fake_hub(tmp_path, monkeypatch):
        exec(compile(program, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_within_project_has_target(document: Path) -> None:
    for link in links(document):
        file, _, anchor = link.partition("#")
        if not file.startswith("http"):
            place = document.parent / file if file else document
            assert place.exists(), link
            assert not anchor or anchor in anchors(place), link


@pytest.mark.parametrize("document", PRESENT, ids=lambda document: document.name)
def test_names_in_inline_code_exist(document: Path) -> None:
    for span in spans(document):
        assert exists(span), span


def exists(span: str) -> bool:
    """Return whether the option, verb, variable, route, extra, target or file exists; True for any other code."""
    if found := re.match(r"(?:torchrun .*)?\brcml (?!VERB)(.*)", span):
        return set(re.findall(r"--[a-z-]+", found[1])) <= options(found[1].split())
    if found := re.fullmatch(r"docker compose( .*)? up", span):
        return composes((found[1] or "").split())
    if found := re.match(r"--[a-z][a-z-]*", span):
        return any(found[0] in options(verb.split()) for verb in CONFIGS) or found[0] in OF_OTHERS
    if found := re.match(rf"{ENVIRONMENT_PREFIX}([A-Z_]+)", span):
        return found[1].lower() in ServeConfig.model_fields
    if found := re.fullmatch(r"(GET|POST|PUT|DELETE) (/\S*)", span):
        return (found[1], found[2]) in ROUTE_RULES
    if found := re.fullmatch(r"pip install '(.*)'", span):
        return bool(extras_of(found[1]))
    if found := re.fullmatch(r"make ([a-z]+)", span):
        return found[1] in targets()
    if re.fullmatch(r"(model|indexes|service|tests|docs|docker|deploy|benchmarks|examples)/[\w./-]+", span):
        return (ROOT / span).exists()
    return True


def options(words: list[str]) -> set[str]:
    """Return the options of the verb that `words` start with; a boolean option also has a --no- form."""
    verb = next((name for name in (" ".join(words[:2]), *words[:1]) if name in CONFIGS), None)
    if words == ["--version"]:
        return {*words}
    if verb is None:
        raise AssertionError(f"{words[:1]} is not a verb")
    names = {"help"}
    for name, field in CONFIGS[verb].model_fields.items():
        names |= {name, f"no_{name}"} if field.annotation is bool else {name}
    return {f"--{name.replace('_', '-')}" for name in names}


@pytest.mark.parametrize("route", ROUTE_RULES, ids=" ".join)
def test_api_document_lists_every_route(route: tuple[str, str]) -> None:
    assert " ".join(route) in set(spans(ROOT / "docs" / "api.md"))
