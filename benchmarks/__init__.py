"""The promises of docs/promises.md, each measured beside a peer in the same run.

Never part of the product or its tests.
"""
