"""Recordings: bags in and out, messages to our types and back. No ROS installation is needed."""

from occ_perception.recordings.bag import BagReader, BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.frames import SensorEvent, sensor_events
from occ_perception.recordings.messages import make, typestore

__all__ = ["BagReader", "BagWriter", "MessageEncoder", "SensorEvent", "make", "sensor_events", "typestore"]
