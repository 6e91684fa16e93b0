"""Detections for people: images, videos, the comparison page, the web demo."""
