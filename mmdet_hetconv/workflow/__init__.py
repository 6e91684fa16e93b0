"""From a trained dense detector to a fast one: convert, deploy, export, slim, evaluate."""
