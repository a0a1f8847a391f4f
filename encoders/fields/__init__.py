"""Cluster membership: does a cell of a multi-band field hold a cluster-member galaxy?"""
