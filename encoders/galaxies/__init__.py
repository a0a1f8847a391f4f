"""Contrastive encoders of galaxies: losses, views, networks, training."""
