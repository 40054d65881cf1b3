import torch


def rbf_decision(x, support, dual, intercept, gamma):
    """In float64, with the distances as differences."""
    decision = kernel(x, support, gamma) @ dual.double().t() + intercept.double()
    return decision.to(x.dtype)


def kernel(x, support, gamma):
    """exp(-gamma |x - s|^2), [B, S] in float64; NaN for a row of x that is not finite."""
    square = torch.cdist(x.double(), support.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.exp(-gamma * square).where(x.isfinite().all(1, keepdim=True), torch.nan)
