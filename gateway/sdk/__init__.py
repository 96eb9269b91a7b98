"""What a component process needs: its environment, its storage, a channel to its partners, and a way to report.

Standard library and `cryptography`-free on purpose: importing it must cost a task next to nothing.
"""
