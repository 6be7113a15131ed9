"""Training in torch: losses, batches, the loop and the prior it has to beat. Import from the modules."""
