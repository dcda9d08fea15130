"""Composition root: puts the parts together and starts and stops them in the right order."""
