"""Bags through the pipelines at full speed: scores, latencies, pictures and reports. No ROS, no torch."""

from occ_perception.replay.evaluation import Evaluation
from occ_perception.replay.report import write_report
from occ_perception.replay.runs import replay_bag, score_outputs

__all__ = ["Evaluation", "replay_bag", "score_outputs", "write_report"]
