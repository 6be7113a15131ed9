"""What gives every pixel of an image a class: SAM3, two passes of it, or the truth of a simulation with errors.

`base` holds the interface and knows no torch; `sam3` and `finetune` need the extra `label`.
"""

from occ_perception.labeling.segmenters.base import FrameSegmenter, Segmenter, TwoPassSegmenter, segment_frame

__all__ = ["FrameSegmenter", "Segmenter", "TwoPassSegmenter", "segment_frame"]
