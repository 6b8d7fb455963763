"""Texts: their tokenizer, the sentences to learn from, and self-supervised training of text encoders."""

from curl_rl.text.sentence_encoder import SentenceEncoder, load_sentence_encoder
from curl_rl.text.tokenizer import Tokenizer

__all__ = ["SentenceEncoder", "Tokenizer", "load_sentence_encoder"]
