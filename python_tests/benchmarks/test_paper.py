"""`benchmarks.paper.tibo_transfer`: which images are clean and which are shifted; averages over sets."""

import statistics

import pytest

from benchmarks.paper import tibo_transfer as tibo


@pytest.mark.parametrize("name", ["smoke", "cpu", "full"])
def test_no_originals_of_shifted_images_are_among_the_clean(name):
    scale = tibo.SCALES[name]
    for count in (0, *scale.shifted):
        clean, parts = tibo.split(scale, count, seed=3)
        clean = set(clean.tolist())
        seen = {each: set(rows.tolist()) for each, rows in parts.items()}
        assert clean | set().union(*seen.values()) <= set(range(scale.images))
        if count == tibo.HALF:
            sizes = scale.images // 2, scale.images - scale.images // 2
            assert set(seen) == set(tibo.SETS) and len(set(map(frozenset, seen.values()))) == 1
        else:
            sizes = scale.images - 15 * count, count
        assert len(clean) == sizes[0]
        shifted = [seen[each] for each in tibo.CORRUPTIONS if each in seen]
        assert len(shifted) == (15 if count else 0)
        for rows, numbers in zip(shifted, (parts[each] for each in tibo.CORRUPTIONS if each in seen), strict=True):
            assert len(rows) == len(numbers) == sizes[1] and not rows & clean
        if count not in (0, tibo.HALF):  # no image under two corruptions; identity's are clean
            assert len(set().union(*shifted)) == 15 * count
            assert len(seen["identity"]) == count


def test_more_shifted_images_than_there_are():
    scale = tibo.SCALES["smoke"]
    assert len(tibo.split(scale, 6, seed=0)[0]) == 96 - 90
    with pytest.raises(ValueError, match="count: expected at most 6 images of each corruption, of 96 in all, got 7"):
        tibo.split(scale, 7, seed=0)


def test_averages_over_sixteen_sets_and_over_fifteen():
    of_sets = {each: [float(i), 2.0 * i] for i, each in enumerate(tibo.SETS)}  # identity is number 5
    assert tibo.averages(of_sets) == [7.5, 15.0]
    assert tibo.averages(of_sets, tibo.CORRUPTIONS) == pytest.approx([115 / 15, 230 / 15])
    for kind in ("NN", "SVM"):
        want = statistics.mean(row[1] for each, row in tibo.PAPER[kind].items() if each != "identity")
        assert tibo.paper_corrupted(kind, "GAUSS") == pytest.approx(want)
    assert tibo.paper_corrupted("SVM", "PLAIN") == pytest.approx((16 * 69.7 - 98.4) / 15)
    assert tibo.paper_corrupted("NN", "SEPARATE 7") is None
