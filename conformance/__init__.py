"""Conformance suite. Empty until it is built; it judges a node from outside and imports nothing of ours but specs."""
