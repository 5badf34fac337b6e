"""A series as NIfTI over WADO-RS: one volume, or the reason why not."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Iterator
from dataclasses import replace

import nibabel
import pytest

from server.compose import Domain
from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import SERIES, STUDY, ask, ct, encoded, read, sample
from tests.unit.test_nifti import OBLIQUE, assert_same, mosaic, reference, slices

NIFTI = "application/x-nifti"
MADE = slices(OBLIQUE, rescale=(2.0, -1024.0))


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    config = configured(tmp_path_factory.mktemp("nifti"))
    config = replace(config, server=replace(config.server, actors="imaging"))
    with serving(config) as served:
        refused = mosaic()
        refused[0].SeriesInstanceUID = "1.2.3.6"
        for one in (*ct(3), sample("test-SR.dcm"), *map(encoded, (*MADE, *refused))):
            served.parts["instances"].add_bytes(one)
        yield served


@pytest.fixture(scope="module")
def web(domain: Domain) -> str:
    return domain.endpoints["dicomweb"]


@pytest.mark.parametrize(("accept", "query"), [(NIFTI, ""), ("", f"?accept={NIFTI}")])
def test_a_series_is_a_volume_whose_voxels_are_at_their_places(web: str, accept: str, query: str) -> None:
    answer = ask(f"{web}/studies/1.2.3/series/1.2.3.4{query}", accept)
    assert (answer.status, answer.headers["content-type"]) == (200, NIFTI)
    assert 'filename="1.2.3.4.nii.gz"' in answer.headers["content-disposition"]
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.body))
    assert_same(image, *reference(MADE))


def test_what_is_no_volume_is_refused_with_the_reason(web: str) -> None:
    report = read(sample("test-SR.dcm"))
    for study, series, reason in (
        (report.StudyInstanceUID, report.SeriesInstanceUID, "has no pixels"),
        ("1.2.3", "1.2.3.6", "is a mosaic"),
    ):
        answer = ask(f"{web}/studies/{study}/series/{series}", NIFTI)
        assert answer.status == 406
        assert reason in answer.text


def test_nothing_is_left_behind_and_others_get_dicom(domain: Domain, web: str) -> None:
    assert ask(f"{web}/studies/{STUDY}/series/{SERIES}", NIFTI).status == 200
    assert ask(f"{web}/studies/{STUDY}/series/{SERIES}").headers["content-type"].startswith("multipart/related")
    assert ask(f"{web}/studies/{STUDY}/series/1.2.404", NIFTI).status == 404
    assert ask(f"{web}/studies/{STUDY}", NIFTI).status == 406
    gc.collect()
    assert list(domain.parts["instances"].staging.iterdir()) == []
