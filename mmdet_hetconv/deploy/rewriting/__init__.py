"""Changes of a recorded network: norms folded, layers fused, each of them undone on demand."""
