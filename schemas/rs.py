"""rs:RegistryResponse: an Outcome to text and back (ITI TF-3 4.2.4)."""

from __future__ import annotations

from lxml import etree

from schemas.ns import RS
from schemas.rim import escape
from xds.messages import Outcome
from xds.problems import Problem, Severity
from xds.vocabulary import ResponseStatus

_ERROR_LIST, _ERROR = f"{{{RS}}}RegistryErrorList", f"{{{RS}}}RegistryError"
#: Characters that XML cannot hold become this one in an error text: the error must get through.
_UNWRITABLE = {code: "\ufffd" for code in (*range(0x20), 0x7F, 0xFFFE, 0xFFFF) if chr(code) not in "\t\n\r"}


#: A message can have more faults than anybody reads: so many are told, and how many there are.
MAX_PROBLEMS = 1000


def _plain(text: str) -> str:
    return escape(text.translate(_UNWRITABLE))


def error_list(problems: tuple[Problem, ...]) -> str:
    """The `rs:RegistryErrorList`, or "" where there is nothing to report; the prefix `rs:` is undeclared."""
    if not problems:
        return ""
    highest = Severity.ERROR if any(p.severity is Severity.ERROR for p in problems) else Severity.WARNING
    rows = "".join([_error(problem) for problem in problems[:MAX_PROBLEMS]])
    if len(problems) > MAX_PROBLEMS:
        context = f"There are {len(problems)} problems; the first {MAX_PROBLEMS} are told."
        rows += _error(Problem(code=problems[0].code, context=context, severity=highest))
    return f'<rs:RegistryErrorList highestSeverity="{highest}">{rows}</rs:RegistryErrorList>'


def _error(problem: Problem) -> str:
    location = "" if problem.location is None else f' location="{_plain(problem.location)}"'
    return (
        f'<rs:RegistryError errorCode="{_plain(problem.code)}" codeContext="{_plain(problem.context)}"'
        f' severity="{problem.severity}"{location}/>'
    )


def outcome_text(outcome: Outcome) -> str:
    """The `rs:RegistryResponse` element, the prefix `rs:` undeclared."""
    errors = error_list(outcome.problems)
    return f'<rs:RegistryResponse status="{outcome.status}"' + (f">{errors}</rs:RegistryResponse>" if errors else "/>")


def encode_outcome(outcome: Outcome) -> bytes:
    """The element as a document of its own."""
    return outcome_text(outcome).replace("<rs:RegistryResponse", f'<rs:RegistryResponse xmlns:rs="{RS}"', 1).encode()


def decode_outcome(element: etree._Element) -> Outcome:
    """The outcome in an rs:RegistryResponse or anything shaped like one (query:AdhocQueryResponse).

    ValueError for a status that IHE does not know.
    """
    status = ResponseStatus(element.get("status", ""))
    problems = tuple(
        Problem(
            code=error.get("errorCode", ""),
            context=error.get("codeContext", ""),
            location=error.get("location"),
            severity=Severity.WARNING if error.get("severity", "").endswith(":Warning") else Severity.ERROR,
        )
        for error in element.iterfind(f"{_ERROR_LIST}/{_ERROR}")
    )
    return Outcome(status=status, problems=problems)
