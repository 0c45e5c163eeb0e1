"""Text to text ids, a family of models a file. Which a model has, `engine.tokens` says."""
