"""Tests that `pip install rcml` is enough to call the service and that other features name the missing extra."""

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
    """Return the normalized name of the distribution that a requirement names."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")


def brought(names: set[str]) -> set[str]:
    """Return the distributions `names` and everything that they require, without extras."""
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
    """Run `code` in a process that can import only what `pip install rcml` installs."""
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


def test_requires_only_httpx_and_pydantic() -> None:
    assert {name_of(one) for one in PROJECT["dependencies"]} == {"httpx", "pydantic"}


def test_client_works_without_extras() -> None:
    shown = run(
        "from rcml import AsyncClient, Client\n"
        "with Client('http://127.0.0.1:9', timeout=1) as client:\n"
        "    print(type(client).__name__, AsyncClient.__name__, 'torch' in sys.modules)\n"
    )
    assert shown.stdout == "Client AsyncClient False\n", shown.stderr


@pytest.mark.parametrize("name", ["Encoder", "Index"])
def test_import_that_needs_extra_fails_with_pip_command(name: str) -> None:
    shown = run(f"try:\n    from rcml import {name}\nexcept ImportError as error:\n    print(error)\n")
    assert shown.stdout.startswith(f"rcml.{name} requires "), shown.stderr
    assert "Run `pip install 'rcml[cpu]'`" in shown.stdout


def test_cli_without_extra_fails_with_pip_command() -> None:
    shown = run("sys.argv = ['rcml', 'serve']\nfrom rcml.__main__ import main\nsys.exit(main())\n")
    assert shown.returncode == 1
    assert shown.stderr.startswith("rcml: The rcml command requires ")
    assert "Run `pip install 'rcml[cpu]'`" in shown.stderr


def test_missing_module_of_rcml_is_not_reported_as_missing_extra() -> None:
    shown = run(
        "from rcml.missing import missing_extra\nwith missing_extra('this'):\n    import model.nothing\n"
    )
    assert "No module named 'model.nothing'" in shown.stderr
    assert "pip install" not in shown.stderr


def test_import_of_rcml_loads_no_dependencies() -> None:
    shown = run(
        "before = set(sys.modules)\nimport rcml\n"
        "print(sorted({one.split('.')[0] for one in set(sys.modules) - before} - set(sys.stdlib_module_names)))\n"
    )
    assert shown.stdout == "['model', 'rcml']\n", shown.stderr
