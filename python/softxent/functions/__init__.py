"""The public functions: each with its signature, its documentation and a call into the core.

Nothing is computed and nothing is checked here: the core does both, so that a small call stays small. Each
file is a family of functions; all of them are given out by `softxent` itself.
"""
