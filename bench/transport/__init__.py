"""Speed of the data plane against gRPC and aiohttp; `python -m bench.transport`."""
