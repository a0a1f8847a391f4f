"""Every value that a user may change, as Hydra groups, and what composes them.

The YAML files stand in one folder per group; `schema` holds the root keys of each entry point,
`entry` starts the entry points, `build` turns a group into an object.
"""
