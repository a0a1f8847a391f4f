"""Cross-sections from maps of halos: parts, one table, populations of sets, evaluation."""
