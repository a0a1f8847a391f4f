"""Stamps made ready for training: cleaned, split by object, matched, with scalers and a report."""
