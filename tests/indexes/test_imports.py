"""Imports of `indexes`: a server that only looks up items must not load torch."""

import subprocess
import sys

import pytest

MODULES = [
    "indexes",
    "indexes.builder.build",
    "indexes.config",
    "indexes.index",
    "indexes.storage.catalogue",
]


@pytest.mark.parametrize("module", MODULES)
def test_importing_indexes_loads_neither_torch_nor_transformers(module: str) -> None:
    code = f"import sys, {module}; print(*{{'torch', 'transformers'}} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_importing_index_options_loads_no_heavy_package() -> None:
    heavy = {"numpy", "faiss", "sqlalchemy", "polars"}
    code = f"import sys, indexes.config; print(*{heavy} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
