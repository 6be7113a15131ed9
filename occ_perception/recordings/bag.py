"""Bags in and out, on rosbags: no ROS installation is needed to read or write what every ROS tool reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Connection,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import get_types_from_msg

from occ_perception.errors import RecordingError
from occ_perception.recordings.messages import typestore

MCAP_MAGIC = b"\x89MCAP0\r\n"
LATCHED_TOPICS = frozenset({"/tf_static"})
"""Topics that are offered as transient local, so that a player hands them to late subscribers."""


class BagReader:
    """Reads a rosbag2 folder or a single .mcap or .db3 file, plain or compressed with zstd.

    A context manager. A recording that was cut off is refused as a whole: what precedes the cut can be had
    by repairing it first, so that nobody takes half a drive for a whole one.

    Args:
        path: folder with a metadata.yaml, or one storage file.

    Raises:
        RecordingError: missing, foreign, cut off, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        source = _storage_of(self.path)
        try:
            self._reader = Reader(source)
            self._reader.open()
        except Exception as error:  # rosbags lets struct, zstd, sqlite and YAML errors through
            raise _damaged(self.path, error) from error

    @property
    def topics(self) -> dict[str, str]:
        """Message type by topic."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages by topic."""
        counts: dict[str, int] = {}
        for connection in self._reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    @property
    def start_ns(self) -> int:
        """Log time of the first message; 0 in an empty bag."""
        return self._reader.start_time if self._reader.message_count else 0

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last message."""
        return max(0, self._reader.duration - 1)

    def raw_messages(self, topics: Collection[str] | None = None, *, start_ns: int | None = None,
                     end_ns: int | None = None) -> Iterator[tuple[str, int, str, bytes]]:
        """(topic, log time in ns, type, CDR bytes) in order of log time, of the given topics or of all.

        Args:
            start_ns, end_ns: log times between which messages are read, the end not included; parts of an MCAP file
                that hold none of them are passed over.

        Raises:
            RecordingError: a topic is not in the bag, or a part of the bag cannot be read.
        """
        connections = self._connections(topics)
        if not connections:
            return
        try:
            for connection, time_ns, data in self._reader.messages(connections, start_ns, end_ns):
                yield connection.topic, time_ns, connection.msgtype, data
        except Exception as error:  # damaged chunks surface only here, as errors of several libraries
            raise _damaged(self.path, error) from error

    def messages(self, topics: Collection[str] | None = None, *, start_ns: int | None = None,
                 end_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, log time in ns, message) in order of log time; arguments as of `raw_messages`.

        Raises:
            RecordingError: as `raw_messages`, or a message does not fit its type.
        """
        store = typestore()
        self._learn_types(self._connections(topics))
        for topic, time_ns, type_name, data in self.raw_messages(topics, start_ns=start_ns, end_ns=end_ns):
            try:
                message = store.deserialize_cdr(data, type_name)
            except Exception as error:
                raise RecordingError(
                    f"a {type_name} at {time_ns} ns cannot be decoded ({error})", where=f"{self.path}: {topic}",
                    fix="The bag is damaged, or was recorded with another version of this message.",
                ) from error
            yield topic, time_ns, message

    def _connections(self, topics: Collection[str] | None) -> list[Connection]:
        if topics is None:
            return list(self._reader.connections)
        self.require(topics)
        return [connection for connection in self._reader.connections if connection.topic in topics]

    def require(self, topics: Collection[str]) -> None:
        """Raise RecordingError, listing the topics there are, unless all the given ones are in the bag."""
        if missing := sorted(set(topics) - self.topics.keys()):
            there = "\n".join(f"  {topic}  [{type_name}]" for topic, type_name in sorted(self.topics.items()))
            raise RecordingError(
                f"no topic {', '.join(missing)}", where=str(self.path),
                fix=f"Name other topics; the bag holds:\n{there or '  (none)'}",
            )

    def _learn_types(self, connections: list[Connection]) -> None:
        """Take over definitions of foreign types from the bag itself, where it carries them."""
        store = typestore()
        for connection in connections:
            if connection.msgtype in store.fielddefs:
                continue
            if connection.msgdef.format != MessageDefinitionFormat.MSG:
                raise RecordingError(
                    f"unknown message type {connection.msgtype}, and the bag carries no definition of it",
                    where=f"{self.path}: {connection.topic}", fix="Read only the topics you need.",
                )
            types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})

    def close(self) -> None:
        """Release the files."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BagWriter:
    """Writes an MCAP bag with zstd-compressed chunks: a rosbag2 folder, or one file if the name ends in .mcap.

    A context manager. The bag is written beside its place and appears under its name only when the block
    ends without an error; otherwise nothing of it stays.

    Args:
        path: folder or .mcap file to make.
        overwrite: replace what is there; otherwise an existing path is refused.

    Raises:
        RecordingError: the path exists, or its folder cannot be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise RecordingError("exists already", where=str(self.path), fix="Remove it, or choose another name.")
        self._workshop = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")
        name = self.path.stem if self.path.suffix == ".mcap" else self.path.name
        # Version 8 of the metadata is the newest that Humble's tools read as well as Jazzy's.
        self._writer = Writer(self._workshop / name, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}
        try:
            shutil.rmtree(self._workshop, ignore_errors=True)
            self._writer.open()
        except OSError as error:
            raise RecordingError(f"cannot be written ({error})", where=str(self.path)) from error

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append a rosbags message; `stamp_ns` is the time at which a player will publish it."""
        type_name = message.__msgtype__
        self.write_raw(topic, stamp_ns, type_name, typestore().serialize_cdr(message, type_name))

    def write_raw(self, topic: str, stamp_ns: int, type_name: str, data: bytes | memoryview) -> None:
        """Append a message that is serialised already (CDR), of a type of our type store.

        Raises:
            RecordingError: the topic holds another type already, or the type is unknown.
        """
        connection = self._connections.get(topic)
        if connection is None:
            if type_name not in typestore().fielddefs:
                raise RecordingError(f"unknown message type {type_name!r}", where=f"{self.path}: {topic}")
            connection = self._writer.add_connection(
                topic, type_name, typestore=typestore(), offered_qos_profiles=(_offered(topic),)
            )
            self._connections[topic] = connection
        elif connection.msgtype != type_name:
            raise RecordingError(f"holds {connection.msgtype}, got {type_name}", where=f"{self.path}: {topic}")
        self._writer.write(connection, stamp_ns, data)

    def close(self) -> None:
        """Finish the bag and put it in its place."""
        self._writer.close()
        finished = self._writer.path
        if self.path.suffix == ".mcap":
            finished = finished / f"{finished.name}.mcap"
        if self.path.is_dir():
            shutil.rmtree(self.path)
        finished.replace(self.path)
        shutil.rmtree(self._workshop)

    def abort(self) -> None:
        """Give up: remove what was written."""
        self._writer.abort()
        shutil.rmtree(self._workshop, ignore_errors=True)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


def _offered(topic: str) -> Qos:
    """How a player shall offer a topic: reliable, and latched where late subscribers need it."""
    forever = QosTime(0, 0)
    latched = topic in LATCHED_TOPICS
    return Qos(
        QosHistory.KEEP_LAST, 1 if latched else 10, QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )


def _storage_of(path: Path) -> Path:
    """The path that rosbags shall open: the folder, or the only storage file of one without metadata."""
    if not path.exists():
        raise RecordingError("does not exist", where=str(path), fix="Check the path of the bag.")
    if path.is_file() and path.suffix in (".mcap", ".db3"):
        return path
    if path.is_dir():
        if (path / "metadata.yaml").exists():
            return path
        storages = sorted([*path.glob("*.mcap"), *path.glob("*.db3")])
        if len(storages) == 1:
            return storages[0]
        if storages:
            raise RecordingError(
                f"{len(storages)} storage files but no metadata.yaml: the recording was not finished",
                where=str(path), fix=f"Repair it with `ros2 bag reindex {path}`.",
            )
    raise RecordingError(
        "is no ROS 2 bag", where=str(path),
        fix="Give a folder with a metadata.yaml, or an .mcap or .db3 file. "
        "A ROS 1 bag (.bag) is converted by `rosbags-convert --src X.bag --dst X`.",
    )


def _damaged(path: Path, error: Exception) -> RecordingError:
    """Say whether a bag that failed to open is foreign, cut off or damaged."""
    mcap = path if path.suffix == ".mcap" else next(iter(path.glob("*.mcap")), None)
    if mcap is not None and mcap.is_file():
        size = mcap.stat().st_size
        with mcap.open("rb") as file:
            begins = file.read(len(MCAP_MAGIC)) == MCAP_MAGIC
            file.seek(max(0, size - len(MCAP_MAGIC)))
            ends = file.read() == MCAP_MAGIC
        if not begins:
            return RecordingError("is no MCAP file", where=str(mcap), fix="Check the path of the bag.")
        if not ends:
            return RecordingError(
                f"is cut off: {size} bytes without the index that ends an MCAP file", where=str(mcap),
                fix=f"Copy it again, or save what precedes the cut with `mcap recover {mcap.name} -o whole.mcap`.",
            )
    return RecordingError(
        f"cannot be read ({type(error).__name__}: {error})", where=str(path),
        fix="The bag is damaged or of a kind we do not know; copy it again, or convert it with `ros2 bag convert`.",
    )
