"""The README tells the truth: every operation and every command is in its tables, and what it names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from feeds import pixv3
from imaging.service import service as imaging_service
from registry.service import service as registry_service
from repository.service import service as repository_service
from server.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def leaves(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_every_operation_is_in_the_readme() -> None:
    def never(*_: object) -> None:
        raise AssertionError

    feed = pixv3.operations(feed=never, authorities=(), now=never, new_id=never)  # type: ignore[arg-type]
    services = (
        registry_service(
            register=never,  # type: ignore[arg-type]
            query=never,  # type: ignore[arg-type]
            describe=never,  # type: ignore[arg-type]
            register_on_demand=never,  # type: ignore[arg-type]
            multi_patient=True,
            update=never,  # type: ignore[arg-type]
            restricted_update=never,  # type: ignore[arg-type]
            remove=never,  # type: ignore[arg-type]
            more=feed,
        ),
        repository_service(provide=never, retrieve=never, remove=never, describe=never),  # type: ignore[arg-type]
        imaging_service(retrieve_images=never, describe=never),  # type: ignore[arg-type]
    )
    names = [operation.name for service in services for operation in service.operations]
    assert len(names) == 14
    assert [name for name in names if f"| {name} |" not in README] == []


def test_every_command_is_in_the_readme_and_shows_an_example() -> None:
    commands = dict(leaves(main, "xdsi"))
    assert [name for name in commands if f"`{name}`" not in README] == []
    without = [
        name for name, command in commands.items() if name.split()[-1] not in (command.help or "").partition("\b")[2]
    ]
    assert without == []


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(r"`((?:tests|docs|registry|repository|imaging|soap|schemas|server|xds)/[\w/.]+)`", README)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
