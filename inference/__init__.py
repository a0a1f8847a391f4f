"""Prediction with trained encoders, and the evaluation of what they predicted.

`predict` and `evaluate` are the entry points, `engine` runs a prediction on any number of devices;
each task has a wing of its own.
"""
