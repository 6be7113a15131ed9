"""Messages are made with the right types, and zeros where nothing is said."""

import numpy as np
import pytest

from occ_perception.errors import RecordingError
from occ_perception.recordings.messages import MSG_FOLDER, make, typestore


def test_every_message_text_of_the_package_is_registered():
    texts = sorted(text.stem for text in MSG_FOLDER.glob("*.msg"))
    assert {"VoxelGrid", "FlowField", "TrackedInstance", "TrackedInstanceArray", "PlannedTrajectory"} <= set(texts)
    for name in texts:
        message = make(f"occ_perception_msgs/msg/{name}")
        data = typestore().serialize_cdr(message, message.__msgtype__)
        assert typestore().deserialize_cdr(data, message.__msgtype__).__msgtype__ == message.__msgtype__


def test_numeric_sequences_get_the_declared_type():
    grid = make("occ_perception_msgs/msg/VoxelGrid", labels=[1, 2], track_ids=[2**63], shape=(1, 2, 1))
    assert grid.labels.dtype == np.uint8
    assert grid.track_ids.dtype == np.uint64
    assert grid.shape.dtype == np.uint32
    assert grid.instance_rows.dtype == np.uint16
    assert grid.instance_rows.size == 0


def test_unknown_types_and_fields_are_named():
    with pytest.raises(RecordingError, match="nowhere/msg/Nothing"):
        make("nowhere/msg/Nothing")
    with pytest.raises(RecordingError, match=r"no fields \['lables'\].*labels"):
        make("occ_perception_msgs/msg/VoxelGrid", lables=[1])
