"""Beyond one machine, and within a budget."""
