"""Strong lenses: what kind of dark-matter substructure an image shows."""
