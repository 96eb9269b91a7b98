"""N real gateways on this machine, each a process of its own: for tests, for vendors, for newcomers."""

from gateway.lab.lab import SERVE, Lab, LabNode, approve, down, read, running, sign, up
from gateway.lab.node import NodeSettings, create_folder

__all__ = [
    "SERVE",
    "Lab",
    "LabNode",
    "NodeSettings",
    "approve",
    "create_folder",
    "down",
    "read",
    "running",
    "sign",
    "up",
]
