"""Folder layouts of annotation tools, each read as one data set."""
