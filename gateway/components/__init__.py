"""The components of this package, one small main each: `python -m gateway.components.<name>`.

What they compute lives elsewhere: secure operators in `gateway.operators`, plain functions in `rows`, `encoding` and
`metrics` beside them. Their self-descriptions are `specs/components/<name>.json`.
"""
