"""Experiments: one question per file; they choose models, prompts, seeds and files, and store what they find."""
