"""What every other room uses and what knows nothing of models: errors, files written whole, locks, display of foreign text, paths, rows of
data files, plug-in lookup, seeded generators, progress, wheels. Nothing here imports torch, transformers or Inspect.
"""
