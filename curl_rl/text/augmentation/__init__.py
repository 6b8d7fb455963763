"""Texts that say nearly the same: augmentation of sentences (UDA, Xie et al. 2019, arXiv 1904.12848)."""
