"""The robot's sensors: where they sit, how they see, and how rigs of other conventions become ours."""

from occ_perception.calibration.rig import Rig, RigCamera, RigLidar, load_rig, save_rig

__all__ = ["Rig", "RigCamera", "RigLidar", "load_rig", "save_rig"]
