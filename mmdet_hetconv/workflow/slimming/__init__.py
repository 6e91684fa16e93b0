"""All steps from a trained dense detector to a faster one, and the report of them."""
