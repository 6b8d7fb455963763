"""Self-supervised learning on images, with the losses, augmentations, encoders and objectives that the agent uses."""
