"""Reinforcement learning from pixels: the agent, its replay and the training loop."""
