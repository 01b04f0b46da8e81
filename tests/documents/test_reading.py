"""PDF files and pictures to text with places, in the process that reads them."""

import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from service.documents.frames import HEAD, Frame, packed, unpacked
from service.documents.places import ReadDocument
from service.documents.reading import Limits
from service.errors import InvalidRequest, TooLarge
from tests.conftest import ROOT
from tests.documents.made import A4, LINES, bomb, pdf, picture, png, saved

LIMITS = Limits(pages=10, chars=10_000)
WORKER = [sys.executable, "-m", "service.documents.worker", "4096"]


class Reader:
    """The process, asked without an event loop."""

    process: "subprocess.Popen[bytes] | None" = None

    def ask(self, data: bytes, **facts: Any) -> Frame:
        if self.process is None:
            self.process = subprocess.Popen(WORKER, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(packed(facts | {"seconds": 60}, data))
        self.process.stdin.flush()
        head = self.process.stdout.read(HEAD.size)
        found, payload = unpacked(head, self.process.stdout.read(sum(HEAD.unpack(head))))
        if "error" in found:
            raise (TooLarge if found["large"] else InvalidRequest)(found["error"])
        return found, payload

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()
            self.process = None


READER = Reader()


@pytest.fixture(scope="module", autouse=True)
def _process() -> Iterator[None]:
    yield
    READER.close()


def read(data: bytes, limits: Limits) -> ReadDocument:
    found, boxes = READER.ask(data, do="read", pages=limits.pages, chars=limits.chars)
    return ReadDocument(found["text"], np.frombuffer(boxes, dtype=np.float32).reshape(-1, 4), found["starts"])


def page_picture(data: bytes, number: int) -> bytes:
    return READER.ask(data, do="picture", page=number)[1]


def test_the_text_of_a_pdf_and_where_it_stands() -> None:
    found = read(pdf([LINES, ["A second page, of 1904."]]), LIMITS)
    at = found.text.index("1902")
    place, later = found.place(at, at + 4), found.place(found.text.index("1904"), found.text.index("1904") + 4)

    assert re.split(r"\s*\n\s*", found.text.strip()) == [*LINES, "A second page, of 1904."]
    assert place is not None
    assert later is not None
    assert (place.page, later.page) == (1, 2)
    ((left, top, right, bottom),) = place.boxes
    assert top * A4[1] == pytest.approx(96 - 14, abs=3)  # the second line, 16 points high
    assert bottom * A4[1] == pytest.approx(96 + 3, abs=3)
    assert 72 / A4[0] < left < right < 0.8


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_turned_page_is_as_it_is_shown(rotate: int) -> None:
    found = read(pdf([LINES], rotate=rotate, size=(842.0, 842.0)), LIMITS)
    place = found.place(0, 3)  # "The", at the upper left of a page that is not turned

    assert place is not None
    ((left, top, right, bottom),) = place.boxes
    across, down = (left + right) / 2, (top + bottom) / 2
    corner = {0: (0, 0), 90: (1, 0), 180: (1, 1), 270: (0, 1)}[rotate]
    assert (round(across), round(down)) == corner


def test_chinese() -> None:
    found = read(pdf([["桥于一九〇二年开通。"]], font="STSong-Light"), LIMITS)

    assert "桥于一九〇二年开通。" in found.text


def test_a_scan_is_read_by_ocr() -> None:
    found = read(pdf([LINES], pictures=True), LIMITS)
    at = found.text.index("1902")
    place = found.place(at, at + 4)

    assert found.text.split("\n")[:2] == list(LINES)
    assert place is not None
    ((left, top, right, bottom),) = place.boxes
    assert pytest.approx(top, abs=0.02) == 130 / 800 * 400 / 842
    assert 0 < left < right < 1
    assert top < bottom


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_pictures_of_pages(kind: str) -> None:
    found = read(saved(picture(LINES), kind), LIMITS)

    assert found.text.split("\n")[:2] == list(LINES)
    place = found.place(0, len(LINES[0]))
    assert place is not None
    ((left, top, _, bottom),) = place.boxes
    assert (left * 1190, top * 800) == pytest.approx((60, 60), abs=15)
    assert bottom * 800 == pytest.approx(98, abs=15)


def test_a_tiff_of_several_pages() -> None:
    found = read(saved(picture(LINES[:1]), "TIFF", save_all=True, append_images=[picture(LINES[1:])]), LIMITS)

    assert found.starts == [0, found.text.index(LINES[1])]
    with pytest.raises(TooLarge, match="2 pages; at most 1"):
        read(saved(picture(LINES[:1]), "TIFF", save_all=True, append_images=[picture(LINES)]), Limits(1, 1000))


def test_a_picture_that_is_turned_in_its_exif_is_read_upright() -> None:
    sideways = picture(LINES).rotate(90, expand=True)
    exif = sideways.getexif()
    exif[0x0112] = 6  # "turn by 90 degrees to the right"

    assert LINES[0] in read(saved(sideways, "JPEG", exif=exif.tobytes()), LIMITS).text


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_is_shown_as_it_was_read(orientation: int) -> None:
    made = picture(LINES)
    exif = made.getexif()
    exif[0x0112] = orientation
    shown = Image.open(io.BytesIO(page_picture(saved(made, "JPEG", exif=exif.tobytes()), 1)))

    assert (shown.width > shown.height) == (orientation in (1, 3))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_shows_through_is_white(kind: str) -> None:
    dark = picture(LINES).convert("L")
    made = Image.new("RGBA", dark.size, (0, 0, 0, 0))
    made.putalpha(dark.point(lambda level: 255 - level))

    assert read(saved(made, kind), LIMITS).text.split("\n")[:2] == list(LINES)


def test_an_answer_in_a_line_has_one_box_and_one_over_two_lines_has_two() -> None:
    found = read(pdf([["The bridge was opened by Ada", "Mary Smith, in 1902."]]), LIMITS)
    words, name = found.text.index("bridge was opened"), found.text.index("Ada")
    one, two = found.place(words, words + 17), found.place(name, found.text.index(","))

    assert one is not None
    assert two is not None
    assert len(one.boxes) == 1
    assert len(two.boxes) == 2


def test_what_nobody_sees_on_the_page_is_not_read() -> None:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    canvas.drawString(72, 700, "Seen.")
    canvas.drawString(5000, 7000, "Unseen.")
    canvas.save()

    assert read(out.getvalue(), LIMITS).text.strip() == "Seen."


def test_an_error_is_of_its_own_file() -> None:
    """PDFium's last error may be that of the file before."""
    with pytest.raises(InvalidRequest, match="encrypted"):
        read(pdf([LINES], password="x"), LIMITS)
    with pytest.raises(InvalidRequest, match="damaged"):
        read(b"%PDF-1.7\n1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj trailer <</Root 1 0 R>>", LIMITS)


def test_a_text_about_pdf_is_a_text() -> None:
    text = "The header of such a file is %PDF-1.7, and its end %%EOF."

    assert read(text.encode() + b" " * 2000, LIMITS).text.startswith("The header")


def test_a_blank_page_takes_no_time() -> None:
    began = time.monotonic()
    read(pdf([[]] * 10), LIMITS)
    assert time.monotonic() - began < 3


def test_plain_text_is_text() -> None:
    found = read("\ufeffThe bridge 🎉".encode(), LIMITS)

    assert (found.text, found.starts) == ("The bridge 🎉", [])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pdf([LINES], password="secret"), "the PDF is encrypted: send it without a password"),
        (pdf([LINES])[:200], "the PDF is damaged"),
        (b"%PDF-1.7 nothing", "the PDF is damaged"),
        (png(LINES)[:500], "the picture is damaged"),
        (b"MZ\x90\x00\x03\xff\xfe", "not a PDF, not a picture"),
        (b"a text with \x00 in it", "not a PDF, not a picture"),
        ("Müller".encode("latin-1"), "no text in UTF-8"),
    ],
    ids=["encrypted", "cut", "empty", "half a picture", "a program", "zero", "latin-1"],
)
def test_what_cannot_be_read_says_why(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read(data, LIMITS)


def test_sizes_are_asked_before_the_work() -> None:
    with pytest.raises(TooLarge, match="12 pages; at most 10"):
        read(pdf([["a"]] * 12), LIMITS)
    with pytest.raises(TooLarge, match="more than 10000 code points"):
        read(pdf([["word " * 60] * 30] * 3), LIMITS)
    with pytest.raises(TooLarge, match="30000 x 30000 pixels"):
        read(bomb(), LIMITS)
    with pytest.raises(TooLarge, match="more than 10000 code points"):
        read(b"a" * 10_001, LIMITS)


def test_a_page_of_any_size_is_bounded_in_pixels() -> None:
    huge = pdf([[]], size=(14_400, 14_400))

    assert read(huge, LIMITS).text.strip() == ""
    assert len(page_picture(huge, 1)) < 100_000


@pytest.mark.parametrize("data", [pdf([LINES, LINES]), png(LINES)], ids=["pdf", "picture"])
def test_a_page_can_be_shown(data: bytes) -> None:
    shown = page_picture(data, 1)

    assert shown.startswith(b"\x89PNG")
    assert 700 < int.from_bytes(shown[16:20]) <= 900


def test_an_empty_page_has_no_text() -> None:
    found = read(pdf([[], LINES]), LIMITS)

    assert found.starts[0] == 0
    assert LINES[0] in found.text
