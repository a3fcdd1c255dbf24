"""What each position inside a model reads of its input, worked out without data."""
