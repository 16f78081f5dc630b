"""Models with a known answer: small adapters with an implanted state, their training, and the known-groups test of every instrument.

Here belong: paired contexts, recipes of the arms, training, the shipped adapters, and the check. Loading an adapter as a target does not
(`nla.models.adapted`), nor do graders: measures that need one register themselves from above (`nla.organisms.measures`).
"""
