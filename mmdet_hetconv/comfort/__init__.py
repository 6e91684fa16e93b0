"""Comforts around training: own data, curves and checks, pages that show results."""
