"""Our package names mean our packages, the wheel holds all of them with their data, and the command starts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_each_of_our_names_resolves_inside_our_tree() -> None:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        assert Path(spec.origin).is_relative_to(ROOT), f"{name} is somebody else's package"


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests", "torture"}
    assert found == set(PACKAGES)


def test_the_wheel_holds_schemas_wsdls_and_migrations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "schemas").rglob("*.[xw]sd*")}
    assert len(expected) == 12
    assert expected <= names
    assert {f"{actor}/migrations/env.py" for actor in ("registry", "repository", "imaging")} <= names


def test_the_command_starts() -> None:
    done = subprocess.run([sys.executable, "-m", "server.cli", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "xdsi demo" in done.stdout
