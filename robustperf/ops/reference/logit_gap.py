import torch


def logit_gap(logits, label, rounding_tolerance):
    z = logits.double()
    column = label[:, None]
    others = z.scatter(1, column, -torch.inf).amax(1)
    largest = torch.where(z.isfinite(), z.abs(), 0.0).amax(1)
    return z.gather(1, column)[:, 0] - others + rounding_tolerance * largest
