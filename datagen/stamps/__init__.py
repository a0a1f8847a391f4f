"""Stamps of galaxies, groups and clusters: cut from raw images, with labels from catalogues."""
