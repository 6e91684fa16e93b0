"""Training and evaluation as the tools run them: checks, curves, patience, validation loss."""
