"""Clusters of self-interacting dark matter: density profiles, maps of mass, X-rays and stars."""
