"""The measurement behind docs/adr/0001: which processes own which sockets, and what runs on them.

Bare code on purpose: no signatures, no store, no codecs, no access control. What is measured is what a layout or a
transport *can* give, so that the real code has something to lose against. Run `python -m bench.spike [--quick]`.
"""
