"""The fused kernel for CPUs: C++ that is compiled on the machine, and what calls it."""
