"""The second file."""

ANSWER = 21.0
