"""What was learnt becomes a model's folder like any other."""
