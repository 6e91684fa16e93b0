"""All layers together, trained towards the dense network without labels."""
