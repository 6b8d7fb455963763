"""Folders of images with captions, files of sentences, and pairs of texts that people have judged."""
