"""Representations of galaxies, groups and clusters from pairs of views of one stamp."""
