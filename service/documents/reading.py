"""PDF files and pictures of pages to text with places.  Runs in a process that can be killed: ``worker.py``.

The text of a PDF is what it holds; a page that holds none, and a picture, is read by OCR (English and Chinese).  What
PDFium parses and Pillow decodes was made by anybody: every size is asked before the work that it bounds.
"""

import functools
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest, TooLarge
from ..types import Floats
from .places import ReadDocument

PICTURES = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
MOST_PIXELS = 50_000_000  # of a picture: 8.5 thousand pixels a side
OCR_DPI, OCR_PIXELS = 170, 6_000_000  # a page of A4 has 2.8 million
BLANK = 24  # of 255: a page whose pixels differ by less has nothing on it, and OCR would take seconds to say so
SHOWN_WIDTH = 900  # pixels of a page's picture
GRID = 1_000_000  # a page has so many places a side
# What PDFium gives for a hyphen at a line's end, and for what has no character.
HYPHEN, NOTHING = {0x2, 0xFFFE}, {0x0, 0xD, 0xFFFF}
NOWHERE = (math.nan,) * 4
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Limits:
    pages: int
    chars: int


def read(data: bytes, limits: Limits) -> ReadDocument:
    """InvalidRequest for what cannot be read, TooLarge for what is above ``limits``."""
    if is_pdf(data):
        return _joined(_pdf_pages(data, limits), limits)
    if picture := _open_picture(data):
        return _joined((_ocr(pixels) for pixels in _frames(picture, limits)), limits)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest(f"not a PDF, not a picture ({', '.join(PICTURES)}), and no text in UTF-8")
    _check_chars(len(text), limits)
    return ReadDocument(text, np.full((len(text), 4), np.nan, dtype=np.float32), [])


def picture(data: bytes, number: int) -> bytes:
    """Page ``number``, from 1, of a PDF or a picture that was read, as a PNG for a browser."""
    from PIL import Image

    if is_pdf(data):
        with _pdf(data) as pdf:
            page = pdf[number - 1]
            shown = page.render(scale=min(SHOWN_WIDTH / page.get_width(), _scale(page, OCR_PIXELS))).to_pil()
    else:
        opened = _open_picture(data)
        opened.seek(number - 1)
        shown = _upright(opened)
        shown.thumbnail((SHOWN_WIDTH, SHOWN_WIDTH * 4), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()


def is_pdf(data: bytes) -> bool:
    """It begins as one; or it says so a little later, as PDF allows, and ends as one."""
    begins = data[:1024].lstrip(b"\xef\xbb\xbf\0 \t\r\n").startswith(b"%PDF-")
    return begins or (b"%PDF-" in data[:1024] and b"%%EOF" in data[-1024:])


def _joined(pages: Iterator[tuple[str, Floats]], limits: Limits) -> ReadDocument:
    """One text, with an empty line between pages."""
    text, boxes, starts = "", [np.zeros((0, 4), dtype=np.float32)], list[int]()
    for words, places in pages:
        if starts:
            text += "\n\n"
            boxes.append(np.full((2, 4), np.nan, dtype=np.float32))
        starts.append(len(text))
        text += words
        boxes.append(places)
        _check_chars(len(text), limits)
    return ReadDocument(text, np.concatenate(boxes), starts)


def _check_chars(count: int, limits: Limits) -> None:
    if count > limits.chars:
        raise TooLarge(f"the file holds more than {limits.chars} code points of text (max_text_chars)")


def _check_pages(count: int, limits: Limits) -> None:
    if count > limits.pages:
        raise TooLarge(f"the file has {count} pages; at most {limits.pages} are read (document_pages)")


def _pdf(data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        # PDFium may say what it said of the file before: only a file that names its encryption has one.
        if b"/Encrypt" in data and "password" in str(error).lower():
            raise InvalidRequest("the PDF is encrypted: send it without a password") from None
        raise InvalidRequest("the PDF is damaged and cannot be read") from None


def _pdf_pages(data: bytes, limits: Limits) -> Iterator[tuple[str, Floats]]:
    import pypdfium2

    with _pdf(data) as pdf:
        _check_pages(len(pdf), limits)
        if not len(pdf):
            raise InvalidRequest("the PDF has no pages")
        for number in range(len(pdf)):
            try:
                page = pdf[number]
                text, boxes = _text_layer(page, limits)
                yield (text, boxes) if text.strip() else _ocr(_rendered(page))
                page.close()
            except pypdfium2.PdfiumError:
                raise InvalidRequest(f"page {number + 1} of the PDF is damaged and cannot be read") from None


def _text_layer(page: Any, limits: Limits) -> tuple[str, Floats]:
    """What the page holds as text, character by character."""
    from pypdfium2 import raw

    layer = page.get_textpage()
    count = layer.count_chars()
    _check_chars(count, limits)
    codes, boxes = list[int](), list[Any]()
    box = raw.FS_RECTF()
    joins = False
    for index in range(count):
        code = raw.FPDFText_GetUnicode(layer, index)
        if code in HYPHEN or code in NOTHING or (joins and code == 0xA):
            joins = code in HYPHEN or (joins and code in NOTHING)
            continue
        joins = False
        if 0xDC00 <= code < 0xE000 and codes and 0xD800 <= codes[-1] < 0xDC00:  # PDFium counts in UTF-16
            codes[-1] = 0x10000 + ((codes[-1] - 0xD800) << 10) + code - 0xDC00
            continue
        place = NOWHERE
        if not chr(code).isspace() and raw.FPDFText_GetLooseCharBox(layer, index, box):  # as high as its font
            place = _shares(page, box.left, box.right, box.bottom, box.top)
            if not _on_page(place):
                continue  # what nobody sees on the page answers nothing
        codes.append(code)
        boxes.append(place)
    layer.close()
    text = "".join(chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd" for code in codes)
    return text, np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _on_page(box: tuple[float, float, float, float]) -> bool:
    """Its middle is."""
    left, top, right, bottom = box
    return 0 <= (left + right) / 2 <= 1 and 0 <= (top + bottom) / 2 <= 1


def _shares(page: Any, left: float, right: float, bottom: float, top: float) -> tuple[float, float, float, float]:
    """From the page's own coordinates to shares of the page as it is shown, turned and cropped."""
    from pypdfium2 import raw

    x, y = raw.c_int(), raw.c_int()
    corners = []
    for across, up in ((left, top), (right, bottom)):
        raw.FPDF_PageToDevice(page, 0, 0, GRID, GRID, 0, across, up, x, y)
        corners.append((x.value / GRID, y.value / GRID))
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _scale(page: Any, most: int) -> float:
    """Pixels a point, so that the page has at most so many."""
    return math.sqrt(most / max(1.0, page.get_width() * page.get_height()))


def _rendered(page: Any) -> Pixels:
    return np.asarray(page.render(scale=min(OCR_DPI / 72, _scale(page, OCR_PIXELS))).to_pil().convert("RGB"))


def _open_picture(data: bytes) -> Any:
    """None where it is no picture."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # asked below, before anything is decoded
    try:
        opened = Image.open(io.BytesIO(data), formats=PICTURES)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
    if opened.width * opened.height > MOST_PIXELS:
        raise TooLarge(f"the picture has {opened.width} x {opened.height} pixels; at most {MOST_PIXELS} are read")
    return opened


def _frames(opened: Any, limits: Limits) -> Iterator[Pixels]:
    """Each page of a TIFF, the first picture of an animation; turned as its EXIF says."""
    frames = getattr(opened, "n_frames", 1) if opened.format == "TIFF" else 1
    _check_pages(frames, limits)
    for number in range(frames):
        try:
            opened.seek(number)
            if opened.width * opened.height > MOST_PIXELS:
                raise TooLarge(f"picture {number + 1} of the file has more than {MOST_PIXELS} pixels")
            upright = _upright(opened)
        except (OSError, ValueError, SyntaxError, EOFError):
            raise InvalidRequest("the picture is damaged and cannot be read") from None
        share = math.sqrt(OCR_PIXELS / (upright.width * upright.height))
        yield np.asarray(upright.reduce(math.ceil(1 / share)) if share < 1 else upright)


def _upright(opened: Any) -> Any:
    """Turned as its EXIF says, what shows through on white, in RGB."""
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(opened)
    if turned.has_transparency_data:
        over = turned.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return turned.convert("RGB")


@functools.cache
def _engine() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1})


def _ocr(pixels: Pixels) -> tuple[str, Floats]:
    """The lines of a page; a code point's box is its share of its line's."""
    if int(pixels.max()) - int(pixels.min()) < BLANK:
        return "", np.zeros((0, 4), dtype=np.float32)
    found = _engine()(pixels)
    height, width = pixels.shape[:2]
    text, boxes = list[str](), [np.zeros((0, 4), dtype=np.float32)]
    for line, corners in zip(found.txts or (), found.boxes if found.boxes is not None else (), strict=True):
        words = f"{line}\n"
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        edges = np.linspace(left, right, len(line) + 1)
        places = np.full((len(words), 4), np.nan, dtype=np.float32)
        places[:-1] = np.column_stack((edges[:-1], np.full(len(line), top), edges[1:], np.full(len(line), bottom)))
        text.append(words)
        boxes.append((places / np.array([width, height, width, height])).astype(np.float32))
    return "".join(text), np.concatenate(boxes)
