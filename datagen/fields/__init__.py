"""Optical fields with galaxy clusters: source catalogue, image per band, file datum."""
