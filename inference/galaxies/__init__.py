"""Prediction on stamps: embeddings, or the fields that a probe finds."""
