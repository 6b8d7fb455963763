"""Images to learn from: folders, the built-in digits, recorded frames."""

from curl_rl.vision.data.folders import DIGITS, balanced_subset, load, warn_about_unseen_classes, whole_path

__all__ = ["DIGITS", "balanced_subset", "load", "warn_about_unseen_classes", "whole_path"]
