"""What is said of a study in manifests of IHE MADO (trial implementation, rev. 1.1): target regions, modalities, metadata."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from imaging.kos.manifest import Coded
from imaging.publication.code_tables import ACQUISITION_MODALITIES, BODY_PARTS
from imaging.publication.mapping import LOINC, SNOMED_CT, code, text
from xds.metadata import DocumentEntry
from xds.values import Code

#: Body parts of PS3.16 Annex L by the region of the value set IHE-MADO1 (1.3.6.1.4.1.19376.1.1.86.1) that they are in. What a body part
#: covers in several regions is listed in each.
_REGIONS: dict[tuple[str, str], str] = {
    ("774007", "Head and neck"): """
        HEAD HEADNECK NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV BRAIN SKULL FACE ORBIT EYE EYELID EAR EAC IAC MASTOID NOSE MOUTH
        JAW MANDIBLE MAXILLA ZYGOMA TMJ TONGUE PAROTID SUBMANDIBULAR PHARYNX NASOPHARYNX HYPOPHARYNX LARYNX PHARYNXLARYNX THYROID
        PARATHYROID SELLA OPTICCANAL CEREBELLUM INTRACRANIAL SCALP CHEEK
    """,
    ("67734004", "Upper trunk"): """
        CHEST THORAX CHESTABDOMEN CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV LUNG RIB STERNUM CLAVICLE MEDIASTINUM
        SCAPULA SCJOINT ACJOINT TRACHEA BRONCHUS TRACHEABRONCHUS ESOPHAGUS THYMUS PARASTERNAL SUPRACLAVICULAR
    """,
    ("63337009", "Lower trunk"): """
        ABDOMEN PELVIS ABDOMENPELVIS CHESTABDOMEN CHESTABDPELVIS NECKCHESTABDOMEN NECKCHESTABDPELV PELVISLOWEXTREMT LIVER SPLEEN KIDNEY
        PANCREAS ADRENAL GALLBLADDER BILEDUCT BILIARYTRACT STOMACH DUODENUM JEJUNUM ILEUM SMALLINTESTINE LARGEINTESTINE COLON APPENDIX
        RECTUM BLADDER URETER URETHRA PROSTATE TESTIS SCROTUM PENIS UTERUS OVARY CERVIX VAGINA PLACENTA RETROPERITONEUM SIJOINT FLANK
        ILIUM LLQ LUQ RLQ RUQ EPIGASTRIC HYPOGASTRIC SUPRAPUBIC UMBILICAL
    """,
    ("53120007", "Upper limb"): """
        UPPERLIMB SHOULDER AXILLA HUMERUS UPPERARM ELBOW FOREARM RADIUS ULNA RADIUSULNA WRIST HAND FINGER THUMB
    """,
    ("61685007", "Lower limb"): """
        LOWERLIMB PELVISLOWEXTREMT HIP THIGH FEMUR KNEE PATELLA LEG CALF TIBIA FIBULA TIBIAFIBULA ANKLE FOOT TOE CALCANEUS
    """,
    ("38266002", "Entire body"): "WHOLEBODY",
    ("113257007", "Cardiovascular system"): """
        AORTA ABDOMINALAORTA THORACICAORTA AORTICARCH ASCAORTA DESCAORTA ARTERY VEIN CAROTID INFVENACAVA SVC
    """,
    ("80891009", "Heart"): "HEART CORONARYARTERY LATRIUM RATRIUM LVENTRICLE RVENTRICLE",
    ("76752008", "Breast"): "BREAST",
    ("1141981001", "Vertebral column"): """
        SPINE CSPINE TSPINE LSPINE SSPINE CTSPINE TLSPINE LSSPINE COCCYX
    """,
}
#: What a series may be of that acquires nothing (PS3.16 CID 33), in part.
_OTHER_MODALITIES = {
    "DOC": "Document",
    "KO": "Key Object Selection",
    "OT": "Other",
    "PLAN": "Plan",
    "PR": "Presentation State",
    "REG": "Registration",
    "RTDOSE": "RT Dose",
    "RTPLAN": "RT Plan",
    "RTSTRUCT": "RT Structure Set",
    "SEG": "Segmentation",
    "SR": "Structured Report",
}


def _by_concept() -> dict[str, tuple[Coded, ...]]:
    found: dict[str, tuple[Coded, ...]] = {}
    for (region, meaning), body_parts in _REGIONS.items():
        own = Coded(region, "SCT", meaning)
        for concept in {region, *(BODY_PARTS[one] for one in body_parts.split() if one in BODY_PARTS)}:
            if own not in found.get(concept, ()):
                found[concept] = (*found.get(concept, ()), own)
    # Newer editions of the map have Thorax for CHEST.
    found["816094009"] = found["51185008"] = found[BODY_PARTS["CHEST"]]
    return found


_TARGETS = _by_concept()


def regions(headers: Sequence[Dataset]) -> list[Coded]:
    """The target regions of a series; a place that is in none of them as the images say it; none where they do not say."""
    found: dict[Coded, None] = {}
    for header in headers:
        concepts = [one for item in header.get("AnatomicRegionSequence") or [] if (one := code(item, header))]
        named = re.sub(r"[ _-]", "", text(header, "BodyPartExamined").upper())
        if not concepts and named in BODY_PARTS:
            concepts = [Code.of(BODY_PARTS[named], SNOMED_CT, text(header, "BodyPartExamined").capitalize())]
        for one in concepts:
            if one.scheme == SNOMED_CT:
                found |= dict.fromkeys(
                    _TARGETS.get(one.code) or (Coded(one.code, "SCT", str(one.display) or one.code),)
                )
    return list(found)


def modality(value: str) -> Coded:
    """A Modality (0008,0060) as a code."""
    return Coded(value, "DCM", ACQUISITION_MODALITIES.get(value) or _OTHER_MODALITIES.get(value, value))


def described_entry(entry: DocumentEntry, headers: Sequence[Dataset]) -> DocumentEntry:
    """The DocumentEntry of a manifest of MADO, of that of XDS-I.b: the type is fixed, procedures and regions are event codes."""
    events = {one.key: one for one in entry.event_code_list}
    for header in headers:
        procedures = (code(item, header) for item in header.get("ProcedureCodeSequence") or ())
        targets = (Code.of(one.value, SNOMED_CT, one.meaning) for one in regions([header]))
        for event in (*filter(None, procedures), *targets):
            events.setdefault(event.key, event)
    return replace(
        entry,
        type_code=Code.of("18748-4", LOINC, "Diagnostic imaging study"),
        event_code_list=tuple(events.values()),
    )
