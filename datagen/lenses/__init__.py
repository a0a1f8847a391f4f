"""Strong lenses with substructure: deflectors, light, images, noise, and what can be detected."""
