"""Log lines: as text, or as JSON objects, one on a line. No character of a line can end it or look like another line."""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from soap.operations import Exchange

Format = Literal["text", "json"]
_access = logging.getLogger("xdsi.access")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: The attribute of a record that holds its fields.
_FIELDS = "xdsi_fields"
#: Of the trace to which belongs what is under way, in hexadecimal; "" where there is none.
trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def set_up(level: str, form: Format) -> None:
    """Everything of this process goes to stderr from now on. `level`: debug, info, warning or error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # They tell statements and parameters, which are patients' data.
    for name in ("alembic", "sqlalchemy", "httpx", "httpcore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A traceback for everything that a peer sends and is not DICOM; what ended an association, our own line says.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def exchange(one: Exchange) -> None:
    """The line of a request that has ended."""
    if not _access.isEnabledFor(logging.INFO):
        return
    fields = {
        "service": one.service,
        "transaction": one.transaction or None,
        "ending": one.ending,
        "seconds": round(one.seconds, 6),
        "bytes_in": one.bytes_in,
        "bytes_out": one.bytes_out,
        "message_id": None if one.message_id is None else printable(one.message_id),
        "incident": one.incident,
    }
    shown = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    _access.info("%s", shown, extra={_FIELDS: {name: value for name, value in fields.items() if value is not None}})


def printable(text: str, most: int = 200) -> str:
    """What somebody sent, as it may stand in a line."""
    return _CONTROL.sub("?", text[:most])


class Text(logging.Formatter):
    """Time, level, logger, message, the trace if there is one; a traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        trace = trace_id.get()
        return _CONTROL.sub("?", super().formatMessage(record)) + (f" trace_id={trace}" if trace else "")


class Json(logging.Formatter):
    """An object with time, level, logger, and either the fields of the record or its message; the trace; a traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        fields |= getattr(record, _FIELDS, None) or {"message": record.getMessage()}
        if trace := trace_id.get():
            fields["trace_id"] = trace
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)
