"""Imports point downwards only, and packages of one layer never import each other (docs/architecture.md)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# package: the packages of ours, and the third-party ones, that it may import
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "xds": (set(), set()),
    "schemas": ({"xds"}, {"lxml"}),
    "soap": ({"xds"}, {"lxml", "spyne", "six"}),
    "database": ({"xds"}, {"sqlalchemy", "alembic"}),
    "registry": ({"xds", "schemas", "soap", "database"}, {"sqlalchemy", "alembic", "lxml", "zstandard"}),
    "feeds": ({"xds", "schemas", "soap"}, {"hl7", "lxml"}),
    "repository": ({"xds", "schemas", "soap", "database"}, {"sqlalchemy", "alembic", "lxml", "obstore"}),
    "imaging": (
        {"xds", "schemas", "soap", "database"},
        {"sqlalchemy", "alembic", "pydicom", "pynetdicom", "numpy", "PIL", "imagecodecs", "jpeg_ls"},
    ),
    "server": (
        {"xds", "schemas", "soap", "database", "registry", "repository", "imaging", "feeds"},
        {"click", "rich", "httpx", "uvicorn", "uvloop", "httptools", "prometheus_client", "opentelemetry"},
    ),
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_only_what_its_layer_may(package: str) -> None:
    ours, theirs = LAYERS[package]
    allowed = ours | theirs | {package} | sys.stdlib_module_names
    found = {path.name: imports(path) - allowed for path in (ROOT / package).rglob("*.py")}
    assert {name: extra for name, extra in found.items() if extra} == {}


def test_only_one_file_knows_spyne() -> None:
    assert [path.name for path in (ROOT / "soap").glob("*.py") if "spyne" in imports(path)] == ["server.py"]


def test_only_one_file_knows_opentelemetry() -> None:
    assert [path.name for path in (ROOT / "server").rglob("*.py") if "opentelemetry" in imports(path)] == ["otlp.py"]
