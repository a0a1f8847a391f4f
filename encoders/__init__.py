"""Encoders: networks that turn images into predictions, their data and their training.

One apartment per task (`encoders.fields`, ...), each with the same rooms: `data`, `network`,
`losses`, `metrics`, `module`. What two or more tasks share stands beside the apartments.
"""
