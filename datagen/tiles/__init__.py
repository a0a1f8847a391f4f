"""Tiles of real and simulated surveys: how they are named, stored, calibrated and read."""
