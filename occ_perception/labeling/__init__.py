"""From raw recordings to labelled scenes: clips with poses, 2D classes, lifted, voted and fused into grids.

Everything is imported by its full path, so that reading a recording never loads a segmenter.
"""
