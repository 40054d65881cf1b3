"""T's protocol for several shifts: the split of the originals, SEPARATE and JOINT."""

import pytest
import torch

from python_tests.support.training import assert_same
from robustperf.transfer import PairedAutoencoder, fit_autoencoders, split_originals

SHIFTS = ["fog", "stripe", "zigzag"]
IMAGES = {name: torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(SHIFTS)}
CLEAN = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(9))
OPTIONS = {"epochs": 1, "batch_size": 4, "progress": False, "seed": 3}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return PairedAutoencoder((1, 8, 8), code=3, width=2, hidden=4)


@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_every_image_is_clean_or_has_one_shift(count):
    split = split_originals(100, SHIFTS, count, seed=4)
    assert list(split.shifted) == SHIFTS and [len(rows) for rows in split.shifted.values()] == [count] * 3
    assert len(split.clean) == 100 - 3 * count
    assert sorted(torch.cat([split.clean, *split.shifted.values()]).tolist()) == list(range(100))


def test_half_of_the_images_have_every_shift():
    split = split_originals(101, SHIFTS, None, seed=4)
    assert len(split.clean) == 50 and all(torch.equal(rows, split.shifted["fog"]) for rows in split.shifted.values())
    assert sorted([*split.clean.tolist(), *split.shifted["fog"].tolist()]) == list(range(101))


def test_the_split_depends_on_the_seed():
    one, same, other = (split_originals(100, SHIFTS, 5, seed=seed).shifted["stripe"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_separate_trains_a_pair_for_each_shift(small, tmp_path):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    found = fit_autoencoders(CLEAN, IMAGES, autoencoder=small, out=tmp_path, **OPTIONS)
    assert list(found) == SHIFTS and len({id(pair) for pair in found.values()}) == 3
    for name, pair in found.items():
        own = PairedAutoencoder((1, 8, 8), code=3, width=2, hidden=4)
        own.load_state_dict(before)
        own.fit(CLEAN, IMAGES[name], **OPTIONS)
        assert_same(pair.state_dict(), own.state_dict())
        assert (tmp_path / name / "model.safetensors").is_file()
    assert_same(small.state_dict(), before)


def test_joint_trains_one_pair_on_all_shifts(small, tmp_path):
    found = fit_autoencoders(CLEAN, IMAGES, joint=True, autoencoder=small, out=tmp_path, **OPTIONS)
    own = PairedAutoencoder((1, 8, 8), code=3, width=2, hidden=4)
    own.load_state_dict(small.state_dict())
    own.fit(CLEAN, torch.cat(list(IMAGES.values())), **OPTIONS)
    assert all(pair is found["fog"] for pair in found.values()) and list(found) == SHIFTS
    assert_same(found["zigzag"].state_dict(), own.state_dict())
    assert (tmp_path / "model.safetensors").is_file()


def test_the_initial_weights_are_appendix_bs_under_the_seed_and_the_callers_generator_is_kept():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    found = fit_autoencoders(CLEAN, {"fog": IMAGES["fog"]}, lr=1e-12, **OPTIONS)["fog"]
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(3)
    own = PairedAutoencoder((1, 8, 8))
    torch.testing.assert_close(found.encoder[0].weight, own.encoder[0].weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("arguments, message", [
    ((0, SHIFTS, 1), "images: expected an integer above 0, got 0"),
    ((10, [], 1), r"shifts: expected one or more different names, got \[\]"),
    ((10, ["fog", "fog"], 1), "shifts: expected one or more different names"),
    ((10, ["a/b"], 1), "shifts: expected names without path separators, got 'a/b'"),
    ((10, SHIFTS, -1), "count: expected an integer >= 0, got -1"),
    ((10, SHIFTS, 4), "count: expected at most 3 images of each shift, of 10 in all, got 4"),
])  # fmt: skip
def test_wrong_splits(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_originals(*arguments)


def test_wrong_images(small):
    with pytest.raises(ValueError, match="shifted: expected one or more different names"):
        fit_autoencoders(CLEAN, {}, autoencoder=small, **OPTIONS)
    with pytest.raises(ValueError, match=r"shifted\['fog'\]: expected shape \[M, 1, 8, 8\], got \[2, 1, 9, 9\]"):
        fit_autoencoders(CLEAN, {"fog": torch.rand(2, 1, 9, 9)}, autoencoder=small, **OPTIONS)
    with pytest.raises(TypeError, match="autoencoder: expected a PairedAutoencoder, got Linear"):
        fit_autoencoders(CLEAN, IMAGES, autoencoder=torch.nn.Linear(1, 1), **OPTIONS)
