"""Public weights to ours."""
