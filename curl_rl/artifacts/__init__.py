"""Trained networks stored as files outside a run: encoders, heads, classifiers, programs."""
