"""Own data: layouts, annotations, and checks before a run."""
