"""What the operator is told: numbers that add up over workers, and logs without secrets."""
