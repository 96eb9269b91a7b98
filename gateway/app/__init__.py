"""The composition root: reads the configuration once and puts the parts of each process together.

`serve` is the parent; it starts `control` and `data` as processes of their own (docs/adr/0001), each of which
loads only what it needs. Nothing below this package knows the configuration, and nothing here decides anything but
which part gets which.
"""
