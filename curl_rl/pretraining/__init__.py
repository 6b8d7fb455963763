"""Self-supervised pretraining: the training loop, distributed training and collapse detection."""
