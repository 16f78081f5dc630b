"""A pair of activation verbalizer (AV) and activation reconstructor (AR): its contract, the known pairs, the reconstructor, the
reconstruction metrics and the export. Training belongs in `nla.training`; the weights of the shipped pair are in `nla/pairs`.
"""
