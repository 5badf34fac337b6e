"""What the commands share: options, and failures told in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from server.config import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
_URL = "http://127.0.0.1:8080"


class Refused(click.ClickException):
    """One line that says why, and exit status 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        click.echo(f"xdsi: {self.message}", err=True)


def worded(command: Callable[P, R]) -> Callable[P, R]:
    """What a command may meet, told in one line: no traceback is of use to its user."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from soap.fault import SoapFault
        from xds.problems import Failure

        try:
            return command(*args, **kwargs)
        except Failure as failure:
            raise Refused(f"refused: {failure}") from None
        except (ConfigError, SoapFault, OSError, ValueError) as error:
            raise Refused(str(error) or type(error).__name__) from None

    return run


config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file; see `xdsi config`."
)
json_option = click.option("--json", "json_output", is_flag=True, help="Print JSON instead of a table.")


def url_option(actor: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The endpoint of an actor, from the command line or the environment."""
    return click.option(
        f"--{actor}",
        envvar=f"XDSI_{actor.upper()}_URL",
        default=f"{_URL}/{actor}",
        show_default=True,
        help=f"Endpoint of the {actor} (environment: XDSI_{actor.upper()}_URL).",
    )
