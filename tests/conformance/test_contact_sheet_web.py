"""The contact sheet of a study or a series over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from imaging.pixels.contact_sheet import contact_sheet
from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import SERIES, STUDY, ask, ct, read, sample

COMPRESSED, REPORT, MANY_FRAMES = "JPEG2000.dcm", "test-SR.dcm", "examples_ybr_color.dcm"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("sheet"))
    config = replace(config, server=replace(config.server, actors="imaging"))
    with serving(config) as served:
        for one in (*ct(12), *map(sample, (COMPRESSED, REPORT, MANY_FRAMES))):
            served.parts["instances"].add_bytes(one)
        yield served.endpoints["dicomweb"]


def drawn(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("path", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}"])
def test_it_shows_what_the_command_shows(web: str, path: str) -> None:
    answer = ask(f"{web}{path}/contact-sheet?tiles=9&tile-px=64")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    expected = contact_sheet([io.BytesIO(one) for one in ct(12)], max_tiles=9, tile_px=64)
    assert np.array_equal(drawn(answer.body), drawn(expected))


@pytest.mark.parametrize("name", [COMPRESSED, REPORT, MANY_FRAMES])
def test_compressed_images_many_frames_and_what_has_no_pixels_are_shown(web: str, name: str) -> None:
    one = read(sample(name))
    answer = ask(f"{web}/studies/{one.StudyInstanceUID}/contact-sheet")
    assert answer.status == 200
    expected = drawn(contact_sheet([sample(name)]))
    found = drawn(answer.body)
    assert found.shape == expected.shape
    # One decoder is not the other: colours may differ by a hair.
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 2


@pytest.mark.parametrize(
    ("path", "accept", "status", "reason"),
    [
        (f"/studies/{STUDY}/contact-sheet?tiles=0", "", 400, "tiles is '0'; it must be a whole number from 1 to 400"),
        (f"/studies/{STUDY}/contact-sheet?tile-px=9999", "", 400, "tile-px is '9999'"),
        (f"/studies/{STUDY}/contact-sheet?tiles=400&tile-px=1024", "", 400, "are more than 16777216 pixels"),
        (f"/studies/{STUDY}/contact-sheet?columns=2", "", 400, "there is no parameter 'columns' here"),
        (f"/studies/{STUDY}/contact-sheet", "image/jpeg", 406, "image/png"),
        ("/studies/1.2.99/contact-sheet", "", 404, "study 1.2.99 is not stored here"),
    ],
)
def test_what_cannot_be_drawn_is_refused(web: str, path: str, accept: str, status: int, reason: str) -> None:
    answer = ask(web + path, accept)
    assert answer.status == status
    assert reason in answer.text
