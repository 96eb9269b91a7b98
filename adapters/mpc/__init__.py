"""MPC engines. Empty until the adapter is built; nothing here is loaded."""
