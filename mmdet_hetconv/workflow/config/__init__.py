"""Configs and the detectors that they describe: read, checked, explained."""
