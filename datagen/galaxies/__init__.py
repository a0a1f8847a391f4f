"""Galaxies, groups and X-ray clusters with hidden merger histories: images and label tables."""
