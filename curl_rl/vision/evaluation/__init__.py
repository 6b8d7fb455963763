"""Judging an image encoder: nearest neighbors, linear probes, fine-tuning, distillation."""
