"""Cross-sections of dark matter from maps of galaxy clusters."""
