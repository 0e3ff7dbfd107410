"""How fast, and how good: scripts that print a table and append it, with its commit and hardware, to results/."""
