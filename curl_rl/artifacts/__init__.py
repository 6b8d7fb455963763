"""Trained networks as files outside of a run: encoders, heads, classifiers, programs."""
