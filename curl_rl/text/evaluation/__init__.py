"""Measures of embeddings of texts, and of images with captions: agreement with people, retrieval, zero-shot classes."""
