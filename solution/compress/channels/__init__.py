"""Channel pruning: the step, what makes a channel matter, mending after the cut, stages, sensitivity."""
