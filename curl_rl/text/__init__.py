"""Texts: their tokenizer, the sentences to learn from, and self-supervised training of text encoders."""
