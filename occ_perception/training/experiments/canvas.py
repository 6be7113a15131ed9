"""A white sheet to draw charts on: lines, bars, marks and text in pixels, smooth because drawn twice as fine."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
INK: Colour = (28, 37, 48)
SOFT: Colour = (110, 120, 132)
GRID: Colour = (226, 230, 235)
_FINE = 2
_FONT = cv2.FONT_HERSHEY_DUPLEX
_SHIFT = 4


class Canvas:
    """An RGB picture. Coordinates are pixels from the upper left corner; a text's `y` is its middle."""

    def __init__(self, width: int, height: int) -> None:
        self._fine = np.full((height * _FINE, width * _FINE, 3), 255, np.uint8)

    def picture(self) -> NDArray[np.uint8]:
        """What was drawn, uint8 RGB [height, width, 3]."""
        height, width = self._fine.shape[0] // _FINE, self._fine.shape[1] // _FINE
        return np.asarray(cv2.resize(self._fine, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def text(self, x: float, y: float, text: str, size: float = 13, colour: Colour = INK, align: float = 0.0,
             bold: bool = False) -> None:
        """ASCII text of about `size` pixels; `align` 0 begins, 0.5 centres and 1 ends it at `x`."""
        scale, thickness = self._scale(size), (3 if size > 16 else 2) if bold else 1
        (width, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
        at = round(x * _FINE - align * width), round(y * _FINE + height / 2)
        cv2.putText(self._fine, text, at, _FONT, scale, colour, thickness, cv2.LINE_AA)

    def width_of(self, text: str, size: float = 13) -> float:
        """Width of a text, pixels."""
        return float(cv2.getTextSize(text, _FONT, self._scale(size), 1)[0][0]) / _FINE

    def bar(self, left: float, top: float, right: float, bottom: float, colour: Colour, edge: Colour | None = None
            ) -> None:
        """A filled rectangle, at least a hair wide."""
        low, high = self._point(min(left, right), top), self._point(max(left, right, left + 0.5), bottom)
        cv2.rectangle(self._fine, low, high, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)
        if edge is not None:
            cv2.rectangle(self._fine, low, high, edge, 2, cv2.LINE_AA, _SHIFT)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: Colour = INK, width: float = 1.0
             ) -> None:
        """A straight line."""
        cv2.line(self._fine, self._point(*start), self._point(*end), colour, max(1, round(width * _FINE)), cv2.LINE_AA,
                 _SHIFT)

    def interval(self, left: float, right: float, y: float, colour: Colour = INK, cap: float = 4.0, width: float = 1.5
                 ) -> None:
        """A whisker from `left` to `right`."""
        self.line((left, y), (right, y), colour, width)
        for x in (left, right):
            self.line((x, y - cap), (x, y + cap), colour, width)

    def dot(self, x: float, y: float, colour: Colour = INK, radius: float = 4.5) -> None:
        """A filled circle."""
        cv2.circle(self._fine, self._point(x, y), round(radius * _FINE * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA,
                   _SHIFT)

    def diamond(self, x: float, y: float, colour: Colour = SOFT, radius: float = 6.0) -> None:
        """A hollow diamond."""
        corners = [self._point(x, y - radius), self._point(x + radius, y), self._point(x, y + radius),
                   self._point(x - radius, y)]
        shape = [np.array(corners, np.int32).reshape(-1, 1, 2)]
        cv2.fillPoly(self._fine, shape, (255, 255, 255), cv2.LINE_AA, _SHIFT)
        cv2.polylines(self._fine, shape, True, colour, 3, cv2.LINE_AA, _SHIFT)

    def arrow(self, x: float, y: float, direction: int, colour: Colour) -> None:
        """A small triangle that says that something goes on to the right (1) or left (-1)."""
        corners = [self._point(x, y), self._point(x - 7 * direction, y - 5), self._point(x - 7 * direction, y + 5)]
        cv2.fillPoly(self._fine, [np.array(corners, np.int32).reshape(-1, 1, 2)], colour, cv2.LINE_AA, _SHIFT)

    @staticmethod
    def _scale(size: float) -> float:
        return size * _FINE / 30.0

    @staticmethod
    def _point(x: float, y: float) -> tuple[int, int]:
        return round(x * _FINE * 2**_SHIFT), round(y * _FINE * 2**_SHIFT)
