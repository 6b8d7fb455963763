"""Evaluation of image encoders: nearest neighbors, linear probes, fine-tuning, distillation."""

from curl_rl.vision.evaluation.comparison import JudgedOn, Row, evaluate_runs, report, table

__all__ = ["JudgedOn", "Row", "evaluate_runs", "report", "table"]
