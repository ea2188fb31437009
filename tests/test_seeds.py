"""Seeds of any size: JAX's own keys below 2**64, in either mode of its integers, and keys of their own above."""

import jax
import numpy as np
import pytest

import diffinv as di
from diffinv.seeds import whole_seed


def words(key):
    return tuple(int(word) for word in jax.random.key_data(key))


@pytest.mark.parametrize("wide", [False, True])
def test_small_seeds_are_jax_keys(wide):
    with jax.enable_x64(wide):
        for seed in (0, 1, 2**31, 2**32 - 1, np.int64(7), np.uint32(9)):
            key = di.seed_key(seed)
            assert jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
            assert words(key) == words(jax.random.key(seed)) == (0, int(seed))


@pytest.mark.parametrize("wide", [False, True])
def test_large_seeds_mean_themselves(wide):
    with jax.enable_x64(wide):
        for seed in (2**32, 2**40 + 5, 2**63, 2**64 - 1):
            assert words(di.seed_key(seed)) == divmod(seed, 2**32)
        draw = jax.random.normal(di.seed_key(2**40))
    assert draw.dtype == ("float64" if wide else "float32")


def test_no_two_seeds_share_a_key():
    seeds = [n + offset for n in (0, 2**32, 2**40, 2**63, 2**64, 2**65, 10**20, 2**400) for offset in (0, 1, 2)]
    assert len({words(di.seed_key(seed)) for seed in seeds}) == len(seeds)
    assert whole_seed(99999999999999999999) == 0x6AD6524BE8DF84A6  # a digest is the same on every machine


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError), ("3", TypeError), (None, TypeError)])
def test_what_is_no_seed_is_refused(seed, error):
    with pytest.raises(error, match="seed is .*; give a whole number, 0 or above"):
        di.seed_key(seed)
