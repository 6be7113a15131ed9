"""One family of errors. Each says what was wrong, where it was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class OccPerceptionError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: what was wrong, with the value that was met and the one that was expected.
        where: the file, topic, field or argument in which it was found.
        fix: what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}. {fix}" if fix else text)


class ConfigurationError(OccPerceptionError):
    """A configuration with one or more faults; all of them are listed at once."""

    def __init__(self, faults: Sequence[str], *, where: str = "", fix: str = "") -> None:
        self.faults = list(faults)
        what = self.faults[0] if len(self.faults) == 1 else (
            f"{len(self.faults)} faults\n" + "\n".join(f"  - {fault}" for fault in self.faults)
        )
        super().__init__(what, where=where, fix=fix)


class ShapeError(OccPerceptionError):
    """An array whose shape, dtype or range does not fit."""


class CalibrationError(ConfigurationError):
    """A rig or a camera calibration that cannot be used."""


class RecordingError(OccPerceptionError):
    """A bag that cannot be read or written."""


class BadMessage(OccPerceptionError):  # noqa: N818  (a message is bad; the node goes on)
    """A sensor message that cannot be used: the frame is dropped and counted under `reason`.

    `reason` is a short stable slug such as `unknown_encoding`, `wrong_size`, `empty_cloud`.
    """

    def __init__(self, reason: str, what: str, *, where: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, where=where, fix=fix)


class ManifestError(ConfigurationError):
    """A model manifest that is wrong in itself or does not fit its files."""


class EngineError(OccPerceptionError):
    """An inference engine that cannot be loaded or run as asked."""


class DatasetError(OccPerceptionError):
    """A data set or sample that cannot be read or written."""


class TrainingError(OccPerceptionError):
    """A training that cannot start, go on or be resumed."""
