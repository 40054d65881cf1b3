"""Attacks of other libraries, as functions from points to points."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Peer = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
"""(model, x [B, ...] in [0, 1], labels [B]) -> points [B, ...]."""


def peers(norm: float) -> dict[str, Peer]:
    """The minimum-norm attacks of adv-lib and foolbox that are installed, by name, at their published settings."""
    return _adv_lib(norm) | _foolbox(norm)


def points_of(peer: Peer, model: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The peer's points in [0, 1], x where one is not finite."""
    point = peer(model, x, labels).detach().to(x.dtype)
    return torch.where(point.isfinite(), point, x).clamp(0, 1)


def _adv_lib(norm: float) -> dict[str, Peer]:
    try:
        from adv_lib import attacks
        from adv_lib.attacks.auto_pgd import minimal_apgd
    except ImportError:
        return {}

    def alma(model, x, y, steps):
        # the published first learning rates, for MNIST and for CIFAR
        rate = 0.5 if x.shape[1] == 1 else 0.05
        return attacks.alma(model, x, y, num_steps=steps, distance="l2", init_lr_distance=rate)

    def fmn(model, x, y):
        return attacks.fmn(model, x, y, norm=norm, steps=100)

    def fab(model, x, y):
        return attacks.fab(model, x, y, norm=norm, n_iter=20)

    def pdpgd(model, x, y, steps):
        return attacks.pdpgd(model, x, y, norm=norm, num_steps=steps)

    def apgd(model, x, y):
        largest = {1.0: 100.0, 2.0: 10.0, math.inf: 0.5}[norm]  # of the radii that are searched
        return minimal_apgd(model, x, y, norm=norm, max_eps=largest, n_iter=30, binary_search_steps=10)

    if norm == 0:
        return {
            "adv-lib FMN-100": fmn,
            "adv-lib VFGA": lambda model, x, y: attacks.vfga(model, x, y, targeted=False),
            **{
                f"adv-lib sigma-zero-{steps}": lambda model, x, y, steps=steps: attacks.sigma_zero(
                    model, x, y, num_steps=steps
                )
                for steps in (100, 300, 1000)
            },
        }
    found: dict[str, Peer] = {"adv-lib FMN-100": fmn, "adv-lib FAB-20": fab, "adv-lib APGD-30, ten radii": apgd}
    if norm == 2:
        for steps in (100, 300):
            found[f"adv-lib DDN-{steps}"] = lambda model, x, y, steps=steps: attacks.ddn(model, x, y, steps=steps)
            found[f"adv-lib ALMA-{steps}"] = lambda model, x, y, steps=steps: alma(model, x, y, steps)
    else:
        for steps in (100, 300):
            found[f"adv-lib PDPGD-{steps}"] = lambda model, x, y, steps=steps: pdpgd(model, x, y, steps)
    return found


def _foolbox(norm: float) -> dict[str, Peer]:
    try:
        import foolbox
    except ImportError:
        return {}

    def of(attack) -> Peer:
        def run(model, x, y):
            wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=str(x.device))
            return attack(wrapped, x, y, epsilons=None)[1]

        return run

    chosen = {
        0.0: {"foolbox FMN-100": foolbox.attacks.L0FMNAttack(steps=100)},
        1.0: {"foolbox FMN-100": foolbox.attacks.L1FMNAttack(steps=100)},
        2.0: {
            "foolbox DDN-100": foolbox.attacks.DDNAttack(steps=100),
            "foolbox FMN-100": foolbox.attacks.L2FMNAttack(steps=100),
            "foolbox DeepFool-50": foolbox.attacks.L2DeepFoolAttack(steps=50),
        },
        math.inf: {
            "foolbox FMN-100": foolbox.attacks.LInfFMNAttack(steps=100),
            "foolbox DeepFool-50": foolbox.attacks.LinfDeepFoolAttack(steps=50),
        },
    }[norm]
    return {name: of(attack) for name, attack in chosen.items()}
