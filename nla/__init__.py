"""Everything that touches weights: models, the `local/` Inspect provider, residual-stream capture and verbalizers."""
