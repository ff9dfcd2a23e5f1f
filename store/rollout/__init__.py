"""Fleet rollouts and their members."""
