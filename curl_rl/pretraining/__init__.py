"""Self-supervised pretraining: the step, the processes that share it, and the watch for collapse."""
