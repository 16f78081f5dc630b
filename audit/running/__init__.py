"""What runs models: an audit's cells, scores for existing logs, rewrites of prompts, and the task files."""
