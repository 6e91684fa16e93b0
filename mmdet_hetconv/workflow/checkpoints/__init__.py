"""Checkpoint files: read without running code, loaded in full or refused."""
