"""How speech is made, a file a stage. Knows nothing of notebooks."""
