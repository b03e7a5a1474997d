"""`pip install rcml` is enough for a program that only calls the service; the rest names the pip command."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    """The distribution that a requirement is for."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")


def brought(names: set[str]) -> set[str]:
    """The distributions `names` and all that they require, extras aside."""
    found: set[str] = set()
    while names - found:
        name = (names - found).pop()
        found.add(name)
        names |= {
            name_of(one)
            for one in requires(name) or ()
            if "extra ==" not in one and "python_version" not in one
        }
    return found


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where only what `pip install rcml` brings can be imported."""
    there = brought({name_of(one) for one in PROJECT["dependencies"]})
    absent = {
        module for module, homes in packages_distributions().items() if not there & {*map(name_of, homes)}
    }
    fence = (
        "import sys\n"
        f"absent = {sorted(absent - {'rcml', 'model', 'indexes', 'service'})!r}\n"
        "class Fence:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in absent:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Fence())\n"
    )
    return subprocess.run([sys.executable, "-c", fence + code], capture_output=True, text=True, cwd=ROOT)


def test_it_requires_httpx_and_pydantic_alone() -> None:
    assert {name_of(one) for one in PROJECT["dependencies"]} == {"httpx", "pydantic"}


def test_the_client_works_without_any_extra() -> None:
    shown = run(
        "from rcml import AsyncClient, Client\n"
        "with Client('http://127.0.0.1:9', timeout=1) as client:\n"
        "    print(type(client).__name__, AsyncClient.__name__, 'torch' in sys.modules)\n"
    )
    assert shown.stdout == "Client AsyncClient False\n", shown.stderr


@pytest.mark.parametrize("name", ["Encoder", "Index"])
def test_what_needs_an_extra_is_refused_with_the_pip_command(name: str) -> None:
    shown = run(f"try:\n    from rcml import {name}\nexcept ImportError as error:\n    print(error)\n")
    assert shown.stdout.startswith(f"rcml.{name} needs "), shown.stderr
    assert "Run `pip install 'rcml[cpu]'`" in shown.stdout


def test_so_is_the_command() -> None:
    shown = run("sys.argv = ['rcml', 'serve']\nfrom rcml.__main__ import main\nsys.exit(main())\n")
    assert shown.returncode == 1
    assert shown.stderr.startswith("rcml: The command rcml needs ")
    assert "Run `pip install 'rcml[cpu]'`" in shown.stderr


def test_a_bug_of_ours_is_not_taken_for_a_missing_package() -> None:
    shown = run(
        "from rcml.missing import missing_extra\nwith missing_extra('this'):\n    import model.nothing\n"
    )
    assert "No module named 'model.nothing'" in shown.stderr
    assert "pip install" not in shown.stderr


def test_names_load_nothing_until_they_are_used() -> None:
    shown = run(
        "before = set(sys.modules)\nimport rcml\n"
        "print(sorted({one.split('.')[0] for one in set(sys.modules) - before} - set(sys.stdlib_module_names)))\n"
    )
    assert shown.stdout == "['model', 'rcml']\n", shown.stderr
