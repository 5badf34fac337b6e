"""The `xdsi demo` command."""

from __future__ import annotations

from pathlib import Path

import click

from server.options import Refused, json_option, worded


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-out"), show_default=True)
@json_option
@worded
def demo(out: Path, json_output: bool) -> None:
    """Do the main job on real DICOM objects, over HTTP on this machine, and verify every byte.

    \b
    xdsi demo --out demo-out
    """
    from server import show
    from server.demo import run

    steps, picture, source = run(out)
    if json_output:
        show.as_json({"steps": steps, "picture": str(picture), "data": source})
    else:
        rows = [
            (one.step, one.transaction, f"{one.seconds:.3f} s", one.documents, one.size, one.verdict) for one in steps
        ]
        show.as_table(source, ("step", "transaction", "time", "documents", "bytes", "verdict"), rows)
        click.echo(f"picture of the retrieved images: {picture}")
    wrong = [one for one in steps if one.verdict != "verified"]
    if wrong:
        raise Refused(f"{wrong[0].step}: {wrong[0].verdict}")


COMMANDS: tuple[click.Command, ...] = (demo,)
