"""Hooks of a training: whole files, curves, losses that are not finite, patience."""
