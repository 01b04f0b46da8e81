"""PDF files and pictures, made for the tests."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

A4 = (595.0, 842.0)
LINES = ("The town hall was built in 1887.", "The bridge over the river was opened in 1902.")


def pdf(
    pages: Sequence[Sequence[str]], *, password: str | None = None, size: tuple[float, float] = A4, rotate: int = 0,
    font: str = "Helvetica", pictures: bool = False,
) -> bytes:  # fmt: skip
    """Each page has its lines, 72 points from the left, the first 72 below the top, 24 apart.

    With ``pictures`` each page is a picture of them, as of a scanner.
    """
    out = io.BytesIO()
    encrypt: Any = StandardEncryption(password, canPrint=0) if password else None
    canvas = Canvas(out, pagesize=size, encrypt=encrypt)
    if font == "STSong-Light":
        pdfmetrics.registerFont(UnicodeCIDFont(font))
    for lines in pages:
        canvas.setPageRotation(rotate)
        if pictures:
            from reportlab.lib.utils import ImageReader

            canvas.drawImage(ImageReader(Image.open(io.BytesIO(png(lines)))), 0, 442, 595, 400)
        else:
            canvas.setFont(font, 16)
            for number, line in enumerate(lines):
                canvas.drawString(72, size[1] - 72 - 24 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def picture(lines: Sequence[str], size: tuple[int, int] = (1190, 800)) -> Image.Image:
    """Lines 60 pixels from the left, the first 60 from the top, 70 apart, 34 high."""
    made = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(made)
    for number, line in enumerate(lines):
        draw.text((60, 60 + 70 * number), line, fill="black", font=ImageFont.load_default(size=34))
    return made


def saved(made: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    made.save(out, kind, **options)
    return out.getvalue()


def png(lines: Sequence[str]) -> bytes:
    return saved(picture(lines))


def bomb(side: int = 30_000) -> bytes:
    """A picture of a few kilobytes that would take gigabytes in memory."""
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "PNG")
    return out.getvalue()
