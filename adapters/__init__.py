"""Adapters to other engines: pure translation of dialects; attached by entry point."""
