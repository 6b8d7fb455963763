"""An object detector that says "unknown" of what it was never taught, and learns new classes one task after the other.

ORE: Joseph et al. 2021, "Towards open world object detection", arXiv 2103.02603. The detector is small enough for a CPU
and to be read in one sitting: backbone and losses in ``detector``, region proposals in ``proposals``, the box head in
``box_head``, boxes and suppression in ``boxes``, RoIAlign in ``roi_align``.
"""
