"""Small configurations with seeded random weights, a module a family."""
