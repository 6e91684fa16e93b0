"""Helpers that every folder may import; they import none of the others."""
