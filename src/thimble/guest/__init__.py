"""Guests of our own: a real Debian for demonstrations, a tiny one for tests.

Built from Debian packages, kept in the cache.
"""
