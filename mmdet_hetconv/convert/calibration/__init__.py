"""Weights of each layer by least squares on images, and the norms behind it."""
