"""What actors ask of one another. A local function and a remote client have the same type; only server/compose.py knows which it is.

Each raises `xds.problems.Failure` when it is refused as a whole, and then nothing of it has been stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from xds.messages import Document, DocumentRequest, ImagingRequest, Outcome, QueryResult, Retrieved
from xds.metadata import ObjectRef, Submission
from xds.patients import PatientEvent
from xds.problems import Problem
from xds.queries import StoredQuery

Register = Callable[[Submission], Outcome]
"""ITI-42 Register Document Set-b; ITI-61, ITI-57 and ITI-92 have the same form."""

Query = Callable[[StoredQuery], QueryResult]
"""ITI-18 Registry Stored Query."""

Remove = Callable[[Sequence[ObjectRef]], Outcome]
"""ITI-62 Remove Metadata."""

Feed = Callable[[PatientEvent], None]
"""ITI-8, ITI-44, ITI-64: what a Patient Identity Source tells."""

Provide = Callable[[Submission, Mapping[str, Document]], Outcome]
"""ITI-41 Provide and Register Document Set-b, RAD-68. The documents are keyed by the id of their DocumentEntry."""

Retrieve = Callable[[Sequence[DocumentRequest]], Iterator[Retrieved | Problem]]
"""ITI-43 Retrieve Document Set: one Retrieved or one Problem for each request, in its order."""

RemoveDocuments = Callable[[Sequence[DocumentRequest]], Outcome]
"""ITI-86 Remove Documents."""

RetrieveImages = Callable[[ImagingRequest], Iterator[Retrieved | Problem]]
"""RAD-69 Retrieve Imaging Document Set: one Retrieved or one Problem for each instance, in the order of the request."""
