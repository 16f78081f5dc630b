"""Code that runs models: the cells of an audit, scoring of existing logs, and rewrites of prompts. It also finds and lists task files."""
