"""Bags come back as they were written; missing, foreign, cut and damaged ones are refused with a reason."""

import subprocess
import sys

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from occ_perception.errors import RecordingError
from occ_perception.recordings import BagReader, BagWriter, make, typestore

NOISE = np.random.default_rng(5)


def string(text):
    return make("std_msgs/msg/String", data=text)


def image(size=600_000):
    return make("sensor_msgs/msg/Image", width=size, height=1, step=size, encoding="mono8",
                data=NOISE.integers(0, 256, size, dtype=np.uint8))


def write(path, count=6):
    """A bag of noise larger than one chunk, so that a cut falls into its data."""
    with BagWriter(path) as bag:
        for i in range(count):
            bag.write("/image", 1_000 + i, image())
            bag.write("/note", 1_000 + i, string(f"note {i}"))
    return path


@pytest.mark.parametrize("name", ["bag", "bag.mcap"])
def test_a_folder_or_a_single_file_comes_back_as_written(tmp_path, name):
    path = write(tmp_path / name)
    assert path.is_file() == name.endswith(".mcap")
    with BagReader(path) as bag:
        assert bag.topics == {"/image": "sensor_msgs/msg/Image", "/note": "std_msgs/msg/String"}
        assert bag.counts == {"/image": 6, "/note": 6}
        assert (bag.start_ns, bag.duration_ns) == (1_000, 5)
        notes = [(topic, stamp, message.data) for topic, stamp, message in bag.messages(["/note"])]
        assert [m.data.size for _, _, m in bag.messages(["/image"])] == [600_000] * 6
    assert notes == [("/note", 1_000 + i, f"note {i}") for i in range(6)]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_messages_come_in_the_order_of_their_stamps(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for stamp in (30, 10, 20):
            bag.write("/note", stamp, string(str(stamp)))
    with BagReader(tmp_path / "bag") as bag:
        assert [message.data for _, _, message in bag.messages()] == ["10", "20", "30"]


def test_raw_messages_can_be_copied_to_another_bag(tmp_path):
    write(tmp_path / "a", count=2)
    with BagReader(tmp_path / "a") as source, BagWriter(tmp_path / "b.mcap") as copy:
        for topic, stamp_ns, type_name, data in source.raw_messages():
            copy.write_raw(topic, stamp_ns, type_name, data)
    with BagReader(tmp_path / "a") as a, BagReader(tmp_path / "b.mcap") as b:
        assert list(a.raw_messages()) == list(b.raw_messages())


@pytest.mark.parametrize(("storage", "mode"), [
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.FILE),
    (StoragePlugin.MCAP, CompressionMode.MESSAGE), (StoragePlugin.MCAP, CompressionMode.NONE),
])
def test_other_storages_and_compressions_are_read(tmp_path, storage, mode):
    with_store = Writer(tmp_path / "bag", version=9, storage_plugin=storage)
    with_store.set_compression(mode, CompressionFormat.ZSTD)
    with with_store as bag:
        connection = bag.add_connection("/note", "std_msgs/msg/String", typestore=typestore())
        bag.write(connection, 7, typestore().serialize_cdr(string("hello"), "std_msgs/msg/String"))
    with BagReader(tmp_path / "bag") as bag:
        assert [(t, s, m.data) for t, s, m in bag.messages()] == [("/note", 7, "hello")]


def test_a_missing_topic_is_answered_with_those_there_are(tmp_path):
    with BagReader(write(tmp_path / "bag", 1)) as bag, pytest.raises(RecordingError) as caught:
        list(bag.messages(["/camera/front/image"]))
    assert "no topic /camera/front/image" in str(caught.value)
    assert "/note  [std_msgs/msg/String]" in str(caught.value)


def test_a_missing_bag_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="does not exist"):
        BagReader(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["notes.txt", "old.bag", "empty_folder"])
def test_something_that_is_no_bag_is_refused(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if "folder" in name else path.write_text("hello")
    with pytest.raises(RecordingError, match="is no ROS 2 bag"):
        BagReader(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", bytes(1000)])
def test_a_foreign_file_named_mcap_is_refused(tmp_path, content):
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(RecordingError, match="is no MCAP file"):
        BagReader(tmp_path / "x.mcap")


def test_a_foreign_file_named_db3_is_refused(tmp_path):
    (tmp_path / "x.db3").write_bytes(b"hello, I am a text" * 100)
    with pytest.raises(RecordingError, match="cannot be read"):
        BagReader(tmp_path / "x.db3")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("name", ["bag", "bag.mcap"])
def test_a_bag_that_was_cut_off_is_refused_and_says_so(tmp_path, name, part):
    path = write(tmp_path / name)
    file = path / "bag.mcap" if path.is_dir() else path
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    with pytest.raises(RecordingError, match=r"is cut off.*mcap recover"):
        BagReader(path)


def test_damage_inside_is_reported_when_it_is_met(tmp_path):
    path = write(tmp_path / "bag.mcap")
    path.write_bytes(path.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\0\0\0\0"))  # where compressed chunks begin
    with BagReader(path) as bag, pytest.raises(RecordingError, match="cannot be read"):
        list(bag.messages())


def test_a_storage_file_without_metadata_is_read_as_far_as_it_is_whole(tmp_path):
    path = write(tmp_path / "bag", 2)
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert bag.counts == {"/image": 2, "/note": 2}
    (path / "second.mcap").write_bytes((path / "bag.mcap").read_bytes())
    with pytest.raises(RecordingError, match="ros2 bag reindex"):
        BagReader(path)


def test_broken_metadata_is_refused(tmp_path):
    path = write(tmp_path / "bag", 1)
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    with pytest.raises(RecordingError, match="cannot be read"):
        BagReader(path)


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def half():
        with BagWriter(tmp_path / "bag") as bag:
            bag.write("/note", 1, string("x"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_bag_under_its_name(tmp_path):
    program = (
        "import signal; from occ_perception.recordings import BagWriter, make\n"
        f"bag = BagWriter({str(tmp_path / 'bag')!r}).__enter__()\n"
        "bag.write('/note', 1, make('std_msgs/msg/String', data='x'))\n"
        "print('ready', flush=True); signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    assert not (tmp_path / "bag").exists()
    write(tmp_path / "bag", 1)  # what the killed one left is not in the way
    with BagReader(tmp_path / "bag") as bag:
        assert bag.counts["/note"] == 1


def test_an_existing_bag_is_only_replaced_on_request(tmp_path):
    for name in ("bag", "bag.mcap"):
        path = write(tmp_path / name, 1)
        with pytest.raises(RecordingError, match="exists already"):
            BagWriter(path)
        with BagWriter(path, overwrite=True) as bag:
            bag.write("/note", 1, string("new"))
        with BagReader(path) as bag:
            assert [message.data for _, _, message in bag.messages()] == ["new"]


def test_an_existing_bag_survives_a_failed_replacement(tmp_path):
    path = write(tmp_path / "bag", 1)

    def fail():
        with BagWriter(path, overwrite=True) as bag:
            bag.write("/note", 1, string("new"))
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    with BagReader(path) as bag:
        assert bag.counts == {"/image": 1, "/note": 1}


def test_a_topic_keeps_one_type(tmp_path):
    def mixed():
        with BagWriter(tmp_path / "bag") as bag:
            bag.write("/note", 1, string("x"))
            bag.write("/note", 2, make("std_msgs/msg/Bool"))

    with pytest.raises(RecordingError, match=r"holds std_msgs/msg/String, got std_msgs/msg/Bool"):
        mixed()


def test_types_we_do_not_know_are_learnt_from_the_bag(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        definition = "int32 left\nint32 right\n"
        connection = bag.add_connection("/odd", "odd_msgs/msg/Pair", msgdef=definition, rihs01="RIHS01_0")
        bag.write(connection, 5, b"\x00\x01\x00\x00" + (3).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    with BagReader(tmp_path / "bag") as bag:
        [(_, _, message)] = bag.messages()
    assert (message.left, message.right) == (3, 4)


def test_a_player_is_told_to_latch_static_transforms_only(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/tf_static", 1, make("tf2_msgs/msg/TFMessage"))
        bag.write("/note", 1, string("x"))
    with Reader(tmp_path / "bag") as bag:
        durability = {c.topic: c.ext.offered_qos_profiles[0].durability.name for c in bag.connections}
    assert durability == {"/tf_static": "TRANSIENT_LOCAL", "/note": "VOLATILE"}
