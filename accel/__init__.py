"""Kernels of privacy computing, usable without the gateway: `from accel import registry`; see docs/kernels.md."""
