"""What pages are made of: tables, numbers, pictures and swatches as HTML, the style they share, files written whole."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import cv2

from occ_perception.replay.pictures import Picture

_JPEG_QUALITY = 88


def style() -> str:
    """The style sheet of all pages."""
    return resources.files("occ_perception.replay").joinpath("page.css").read_text(encoding="utf-8")


def swatch(colour: Iterable[int], name: str) -> str:
    """A coloured square with a name."""
    rgb = ",".join(map(str, colour))
    return f'<span><span class="swatch" style="background:rgb({rgb})"></span>{escape(name)}</span>'


def figure(caption: str, picture: Picture, kind: str) -> str:
    """A picture inside the page, `jpg` or `png`, with a caption."""
    code = base64.b64encode(encoded(picture, kind)).decode()
    media = "jpeg" if kind == "jpg" else kind
    return (f'<figure><img src="data:image/{media};base64,{code}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; the header is text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def percent(value: float | None) -> str:
    """A fraction in percent with one digit, a dash for NaN or none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def number(value: float | None, unit: str = "") -> str:
    """A number with two or one digits, a dash for NaN or none."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}{unit}" if value < 10 else f"{value:.1f}{unit}"


def encoded(picture: Picture, kind: str) -> bytes:
    """A picture as the content of a file, `jpg` or `png`."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if kind == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    return cv2.imencode(f".{kind}", picture[..., ::-1], settings)[1].tobytes()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it."""
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
