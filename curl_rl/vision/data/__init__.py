"""Images to learn from: folders, the built-in digits, recorded frames."""

from curl_rl.vision.data.folders import DIGITS, balanced_subset, load, say_what_cannot_be_learnt

__all__ = ["DIGITS", "balanced_subset", "load", "say_what_cannot_be_learnt"]
