"""What the operations of a Program compute, on the CPU."""
