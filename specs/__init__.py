"""The standard as data: routes, headers, codes, states, wire formats, clauses.

Imports nothing of ours and does no I/O.
"""
