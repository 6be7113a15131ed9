"""Recordings: bags in and out, messages to our types and back. No ROS installation is needed."""
