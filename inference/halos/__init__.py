"""Cross-sections of dark matter from maps of halos."""
