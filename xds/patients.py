"""What a Patient Identity Source tells a registry (ITI TF-2 3.8, 3.44; the supplement XAD-PID Change Management, ITI-64)."""

from __future__ import annotations

from dataclasses import dataclass

from xds.values import Identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientAdded:
    """A patient of the affinity domain exists (ADT^A01, A04, A05; PRPA_IN201301UV02). Telling it again changes nothing."""

    patient_id: Identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientsMerged:
    """Two ids were one patient: `subsumed` is no longer used, `surviving` is (ADT^A40; PRPA_IN201304UV02). It cannot be undone."""

    surviving: Identifier
    subsumed: Identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChanged:
    """What was of `old_patient_id` and `old_source_patient_id` is now of `patient_id` and `source_patient_id` (ADT^A43, ITI-64)."""

    patient_id: Identifier
    source_patient_id: Identifier
    old_patient_id: Identifier
    old_source_patient_id: Identifier


PatientEvent = PatientAdded | PatientsMerged | LinkChanged
