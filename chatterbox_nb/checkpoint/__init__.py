"""What can be loaded, and how weights come in: catalog, source, loader, synthetic checkpoints."""
