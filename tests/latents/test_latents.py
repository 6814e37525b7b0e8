"""Laws of the latent families: the null member is G, moments, mixing, one batch = its members."""

import pytest
import torch
from torch import nn

from rtil.latents.additive import Additive
from rtil.latents.family import additive, multicode, shown_members
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import FADES, MultiCode
from rtil.latents.space import Latents, MapScale, merge
from rtil.process.rng import seeded

ADDITIVE = tuple(Additive(depth) for depth in range(4))
CODES = tuple(MultiCode(n, block=2) for n in (1, 3, 5))


def pick(latents, rows):
    """The latents of some samples of a batch, in order."""
    codes = rows
    if latents.counts is not None:
        first = [sum(latents.counts[:b]) for b in range(len(latents.counts))]
        codes = [first[b] + n for b in rows for n in range(latents.counts[b])]
    return latents._replace(
        w=latents.w[codes],
        noise=tuple(n[rows] for n in latents.noise),
        add=latents.add and {k: z[rows] for k, z in latents.add.items()},
        alpha=None if latents.alpha is None else latents.alpha[codes],
        counts=latents.counts and tuple(latents.counts[b] for b in rows),
        member=tuple(latents.member[b] for b in rows),
    )


# The null member is G


def test_zero_injection_is_the_plain_generator(generator, rng):
    latents = Additive(0).sample(generator, 3, rng)
    plain = generator.image(generator.run(latents.w, latents.noise or None), latents.w)
    assert torch.equal(Additive(0).synthesize(generator, latents), plain)
    zeros = {k: torch.zeros(3, *generator.shapes[k]).double() for k in (1, 2, 3, 4)}
    for relative in (False, True):
        space = Additive(4, relative=relative)
        assert torch.equal(space.synthesize(generator, latents._replace(add=zeros)), plain)
    silent = Additive(4, sigma=0.0).sample(generator, 3, rng)
    plain = generator.image(generator.run(silent.w, silent.noise or None), silent.w)
    assert torch.equal(Additive(4).synthesize(generator, silent), plain)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_one_code_is_the_plain_generator(generator, rng, block):
    latents = MultiCode(1, block).sample(generator, 3, rng)
    plain = generator.image(generator.run(latents.w, latents.noise or None), latents.w)
    assert torch.equal(MultiCode(1, block).synthesize(generator, latents), plain)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_equal_codes_whose_weights_sum_to_one_are_the_plain_generator(generator, rng, block):
    """Also with weights that differ between channels: each channel's sum to one."""
    plain = Additive(0).sample(generator, 2, rng)
    alpha = torch.rand(2, 3, generator.shapes[block][0], generator=rng, dtype=torch.float64)
    alpha /= alpha.sum(1, keepdim=True)
    w = plain.w.repeat_interleave(3, 0)
    latents = Latents(w, plain.noise, alpha=alpha.flatten(0, 1), counts=(3, 3), member=(0, 0))
    image = MultiCode(3, block).synthesize(generator, latents)
    torch.testing.assert_close(image, Additive(0).synthesize(generator, plain))


def test_codes_in_a_batch_are_drawn_as_each_sample_alone(generator, rng):
    space = MultiCode(3, 2)
    latents = space.sample(generator, 4, rng)
    images = space.synthesize(generator, latents)
    for b in range(4):
        alone = space.synthesize(generator, pick(latents, [b]))
        torch.testing.assert_close(images[b : b + 1], alone, rtol=1e-12, atol=1e-12)


# Restart


def test_injection_on_restart_equals_injection_inside_the_run(generator, rng):
    """Cut before the injection: a restart from block k's plain output adds z_k itself."""
    space = Additive(4)
    latents = space.sample(generator, 2, rng)
    full = space.synthesize(generator, latents)
    noise = latents.noise or None
    state = generator.run(latents.w, noise, stop=1)
    for k in (1, 2, 3, 4):
        assert torch.equal(space.synthesize(generator, latents, start=k, state=state), full)
        rest = latents._replace(add={j: z for j, z in latents.add.items() if j >= k})
        assert torch.equal(space.synthesize(generator, rest, start=k, state=state), full)
        if k < 4:
            state = state._replace(x=state.x + latents.add[k])
            state = generator.step(k + 1, state, latents.w, noise)


def test_injection_joins_before_the_own_image_of_its_block(stylegan2, rng):
    """z_k changes toRGB of block k: a last block's injection reaches the image linearly."""
    G = stylegan2(16)
    latents = Additive(0).sample(G, 2, rng)
    z = G.randn((2, *G.shapes[3]), rng)

    def image(scale):
        return Additive(3).synthesize(G, latents._replace(add={3: scale * z}))

    torch.testing.assert_close(image(2.0) - image(0.0), 2 * (image(1.0) - image(0.0)))
    changed = image(1.0) - image(0.0)
    torch.testing.assert_close(changed, G.blocks[2].to_rgb.conv(z, latents.w[:, 5])[0])


def test_multicode_restarts_after_the_mix(generator, rng):
    """At the mix and after it, from the state that codes of training have there."""
    G, space = generator, MultiCode(3, 2)
    latents = space.sample(G, 2, rng)
    full = space.synthesize(G, latents)
    noise = tuple(maps.repeat_interleave(3, 0) for maps in latents.noise)
    state = G.run(latents.w, noise or None, stop=2)

    def mixed(x):
        return (x * latents.alpha[:, :, None, None]).view(2, 3, *x.shape[1:]).sum(1)

    state = state._replace(x=mixed(state.x), rgb=None if state.rgb is None else mixed(state.rgb))
    torch.testing.assert_close(space.synthesize(G, latents, start=2, state=state), full)
    shares = latents.alpha.view(2, 3)
    shares = shares / shares.sum(1, keepdim=True)
    w = torch.einsum("bn,bnf->bf", shares, latents.w.reshape(2, 3, -1)).view(2, *G.w_shape)
    state = G.step(3, state, w if G.per_block_styles else latents.w, latents.noise or None)
    torch.testing.assert_close(space.synthesize(G, latents, start=3, state=state), full)


# Moments of the samples


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_injected_maps_are_independent_normals_of_variance_sigma_squared(pggan, sigma):
    G = pggan(16)
    batch = 4000
    latents = Additive(3, sigma).sample(G, batch, torch.Generator().manual_seed(0))
    assert sorted(latents.add) == [1, 2, 3]
    flat = {k: z.flatten(1) / sigma for k, z in latents.add.items()}
    for z in flat.values():
        # Standard errors over `batch` draws of every entry; 6 of them for up to 1024 entries.
        assert z.mean(0).abs().max() < 6 / batch**0.5
        assert (z.var(0) - 1).abs().max() < 6 * (2 / batch) ** 0.5
    joint = torch.cat([latents.w, *(z[:, :50] for z in flat.values())], 1)
    correlation = torch.corrcoef(joint.T) - torch.eye(joint.shape[1])
    assert correlation.abs().max() < 6 / batch**0.5


def test_relative_sigma_counts_in_rms_of_the_map(generator, rng):
    """Each sample's injected map has sigma times the rms of the map that it joins."""
    sigma = 0.7
    latents = Additive(1, sigma).sample(generator, 2, rng)
    noise = latents.noise or None
    x = generator.run(latents.w, noise, stop=1)
    rms = x.x.square().mean((1, 2, 3), keepdim=True).sqrt()
    assert (rms[0] / rms[1]).log().abs() > 0.001
    scaled = latents._replace(add={1: latents.add[1] * rms})
    relative = Additive(1, sigma, relative=True).synthesize(generator, latents)
    torch.testing.assert_close(relative, Additive(1).synthesize(generator, scaled))


@pytest.mark.parametrize("codes", [1, 2, 5])
def test_weights_of_codes_have_the_moments_of_a_flat_dirichlet(pggan, codes):
    G, batch = pggan(8), 40_000
    latents = MultiCode(codes, 1).sample(G, batch, torch.Generator().manual_seed(0))
    alpha = latents.alpha.view(batch, codes)
    assert latents.counts == (codes,) * batch
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(batch).double(), rtol=0, atol=1e-6)
    variance = (codes - 1) / (codes**2 * (codes + 1))
    error = variance**0.5 / batch**0.5
    assert (alpha.mean(0) - 1 / codes).abs().max() <= 5 * error + 1e-12
    assert (alpha.var(0) - variance).abs().max() <= 0.05 * variance + 1e-12
    if codes > 1:  # covariance of a flat Dirichlet: -variance / (N - 1)
        covariance = float(torch.cov(alpha.T)[0, 1])
        assert covariance == pytest.approx(-variance / (codes - 1), rel=0.1)


def test_weights_stay_finite_when_the_uniform_draw_is_zero(pggan, rng, monkeypatch):
    """A float32 uniform is exactly 0 once in 2^24 draws: a few times in a run of the paper."""
    monkeypatch.setattr(torch, "rand", lambda shape, **settings: torch.zeros(shape))
    for codes in (1, 4):
        alpha = MultiCode(codes, 1).sample(pggan(8), 2, rng).alpha
        torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / codes))


# Several codes


@pytest.mark.parametrize("kind", ["pggan", "karras", "wrapped"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_multicode_is_a_loop_over_codes(request, rng, block, kind):
    """g_1(sum_n g_0(z_n) * alpha^n), also with weights that differ between channels."""
    G = request.getfixturevalue(kind)(16)
    latents = MultiCode(3, block).sample(G, 2, rng)
    channels = G.shapes[block][0]
    for alpha in (latents.alpha, torch.rand(6, channels, generator=rng).double()):
        images = MultiCode(3, block).synthesize(G, latents._replace(alpha=alpha))
        for b in range(2):
            mixed = 0.0
            for n in range(3 * b, 3 * b + 3):
                x = G.run(latents.w[n : n + 1], stop=block).x
                mixed = mixed + x * alpha[n].view(1, -1, 1, 1)
            state = G.run(latents.w[:1], stop=block)._replace(x=mixed)
            expected = G.image(G.run(latents.w[:1], start=block, state=state), latents.w[:1])
            torch.testing.assert_close(images[b : b + 1], expected)


@pytest.mark.parametrize("kind", ["stylegan2", "wrapped_styles"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_blocks_after_the_mix_read_the_mean_style_of_the_codes(request, rng, block, kind):
    """By hand, code by code: maps channel by channel, the crossing image by mean weights, styles
    by shares of absolute weights, here with negative ones and, in one sample, none at all."""
    G = request.getfixturevalue(kind)(16)
    latents = MultiCode(3, block).sample(G, 3, rng)
    alpha = torch.randn(9, G.shapes[block][0], generator=rng, dtype=torch.float64)
    alpha[6:] = 0
    images = MultiCode(3, block).synthesize(G, latents._replace(alpha=alpha))
    for b in range(3):
        noise = tuple(maps[b : b + 1] for maps in latents.noise) or None
        x = rgb = w = 0.0
        size = alpha[3 * b : 3 * b + 3].abs().sum()
        for n in range(3 * b, 3 * b + 3):
            style = latents.w[n : n + 1]
            state = G.run(style, noise, stop=block)
            x = x + state.x * alpha[n].view(1, -1, 1, 1)
            rgb = None if state.rgb is None else rgb + state.rgb * alpha[n].mean()
            w = w + style * (alpha[n].abs().sum() / size if size else 1 / 3)
        state = state._replace(x=x, rgb=rgb)
        expected = G.image(G.run(w, noise, start=block, state=state), w)
        torch.testing.assert_close(images[b : b + 1], expected)


def test_gradients_of_weights_that_are_all_zero_are_finite(stylegan2, rng):
    G = stylegan2(16)
    latents = MultiCode(3, 2).sample(G, 2, rng)
    alpha = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    image = MultiCode(3, 2).synthesize(G, latents._replace(alpha=alpha))
    (slope,) = torch.autograd.grad(image.sum(), alpha)
    assert slope.isfinite().all() and slope.any()


def test_codes_mix_after_the_last_block_while_the_generator_is_smaller(pggan, rng):
    G = pggan(32, phase_nimg=[10, 10, 10, 10])
    G.progress(19)
    latents = MultiCode(3, 4).sample(G, 2, rng)
    at_two = MultiCode(3, 2).synthesize(G, latents)
    assert torch.equal(MultiCode(3, 4).synthesize(G, latents), at_two)


def test_codes_mix_the_image_of_a_block_that_fades_in_as_its_map(pggan, rng):
    """Both toRGB are affine and weights sum to 1: the image is the mean of the codes' images."""
    G = pggan(16, phase_nimg=[10, 100, 10])
    G.progress(35)
    latents = MultiCode(3, 2).sample(G, 2, rng)
    assert 0 < G.alpha < 1
    images = G(latents.w) * latents.alpha[:, :, None, None]
    expected = images.view(2, 3, *images.shape[1:]).sum(1)
    torch.testing.assert_close(
        MultiCode(3, 2).synthesize(G, latents), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["pggan", "karras"])
def test_as_published_the_image_that_fades_out_is_the_last_codes_alone(request, rng, kind):
    """By hand, for codes that stand in one batch with plain samples; the two choices differ by
    (1 - alpha) times the difference of the images that fade out."""
    G = request.getfixturevalue(kind)(16, phase_nimg=[10, 100, 10])
    G.progress(35)
    published = [MultiCode(n, 2, fade_in="last") for n in (1, 3)]
    latents = Mixture(published, group=2).sample(G, 4, rng)
    assert latents.counts == (1, 1, 3, 3) and 0 < G.alpha < 1
    images = published[0].synthesize(G, latents)
    ours = MultiCode(3, 2).synthesize(G, latents)
    before, first = G.around.before, 0
    for b, n in enumerate(latents.counts):
        codes, alpha = latents.w[first : first + n], latents.alpha[first : first + n]
        first += n
        small = G.run(codes, stop=1).x
        mixed = (G.run(codes, stop=2).x * alpha[:, :, None, None]).sum(0, keepdim=True)
        old = G.upsample(G.to_rgb[0](before(small)))
        new = G.to_rgb[1](before(mixed))
        expected = (1 - G.alpha) * old[-1:] + G.alpha * new
        torch.testing.assert_close(images[b : b + 1], expected, rtol=1e-6, atol=1e-6)
        mean = (old * alpha[:, :, None, None]).sum(0, keepdim=True)
        difference = (1 - G.alpha) * (old[-1:] - mean)
        torch.testing.assert_close(
            images[b : b + 1] - ours[b : b + 1], difference, rtol=1e-6, atol=1e-6
        )
        assert (n == 1) == (float(difference.detach().abs().max()) < 1e-6)


def test_the_choice_of_a_fade_in_is_none_once_the_block_of_the_mix_is_whole(pggan, rng):
    """From the next block on the mixed map fades out in either."""
    G = pggan(16, phase_nimg=[10, 100, 10])
    latents = MultiCode(3, 2).sample(G, 2, rng)
    for nimg in (70, 112, 200):
        G.progress(nimg)
        images = [MultiCode(3, 2, fade_in=name).synthesize(G, latents) for name in FADES]
        assert torch.equal(*images)


# Mixtures


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("stylegan2", ADDITIVE),
        ("pggan", CODES),
        ("karras", CODES),
        ("stylegan2", CODES),
        ("wrapped_styles", CODES),
    ],
)
def test_one_batch_of_a_mixture_equals_its_members_one_by_one(request, rng, kind, members):
    G = request.getfixturevalue(kind)(16)
    mixture = Mixture(members, group=2)
    latents = mixture.sample(G, 12, rng)
    assert set(latents.member) == set(range(len(members)))
    images = mixture.synthesize(G, latents)
    for b, m in enumerate(latents.member):
        one = pick(latents, [b])
        if members is ADDITIVE:
            one = one._replace(add={k: z for k, z in one.add.items() if k <= members[m].depth})
            dropped = [k for k in latents.add if k > members[m].depth]
            assert all(latents.add[k][b].abs().max() == 0 for k in dropped)
        else:
            assert one.counts == (members[m].num_codes,)
        alone = members[m].synthesize(G, one)
        torch.testing.assert_close(images[b : b + 1], alone, rtol=1e-12, atol=1e-12)


def test_mixture_draws_each_part_from_its_member(pggan):
    """Styles in one draw, the rest from each member in turn, and members lie together."""
    G = pggan(16)
    space = Mixture(CODES, group=2)
    latents = space.sample(G, 6, seeded("cpu", 1))
    rng = seeded("cpu", 1)
    styles = G.sample_w(sum(2 * member.num_codes for member in CODES), rng)
    split = styles.split([2 * member.num_codes for member in CODES])
    expected = merge([member.extend(G, w, rng) for member, w in zip(CODES, split)])
    assert torch.equal(latents.w, expected.w) and torch.equal(latents.alpha, expected.alpha)
    assert latents.counts == (1, 1, 3, 3, 5, 5)
    assert latents.member == (0, 0, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("weights", "cycle"),
    [(None, 4), ((1, 1, 1, 1), 4), ((2, 1, 1, 0), 4), ((5, 2, 2, 1), 10), ((0, 0, 0, 3), 1)],
)
@pytest.mark.parametrize(("batch", "group"), [(16, 4), (6, 4), (8, 8), (5, None)])
def test_members_rotate_in_proportion_to_the_weights(weights, cycle, batch, group):
    """Within a group after every draw, exactly over a cycle; groups never mix members."""
    space = Mixture(ADDITIVE, weights, group)
    assert len(space.rotation) == cycle
    shares = torch.tensor(weights or [1.0] * 4)
    shares, counts = shares / shares.sum(), torch.zeros(4)
    for turn in range(cycle):
        member = space.drawn(batch, turn)
        size = next(n for n in range(min(batch, group or batch), 0, -1) if batch % n == 0)
        groups = [member[i : i + size] for i in range(0, batch, size)]
        assert len(member) == batch and all(len(set(g)) == 1 for g in groups)
        counts += torch.bincount(torch.tensor(member), minlength=4) / size
        assert (counts - shares * (turn + 1) * len(groups)).abs().max() < 1
    torch.testing.assert_close(counts, shares * cycle * len(groups))


def test_rotation_of_weights_without_a_short_cycle_is_close():
    space = Mixture(ADDITIVE, (1.0, 2**0.5, 3**0.5, 5**0.5))
    counts = torch.bincount(torch.tensor(space.rotation), minlength=4)
    shares = torch.tensor(space.weights) / sum(space.weights)
    assert (counts / len(space.rotation) - shares).abs().max() <= 1 / len(space.rotation)


def test_expected_loss_of_a_mixture_is_the_weighted_mean_over_members(pggan):
    """The loss of images under a fixed D, over turns; moments of both by many draws."""
    G, weights = pggan(8), (1, 2)
    members = (Additive(0), Additive(2, sigma=3.0))
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).double()

    def losses(space, batch, turn=0):
        latents = space.sample(G, batch, seeded("cpu", turn), turn=turn)
        with torch.no_grad():
            return D(space.synthesize(G, latents)).square()[:, 0]

    mixed = torch.cat([losses(Mixture(members, weights), 120, turn) for turn in range(60)])
    means = [losses(member, 6000, 100 + i) for i, member in enumerate(members)]
    expected = (means[0].mean() + 2 * means[1].mean()) / 3
    error = mixed.std() * (2 / len(mixed)) ** 0.5
    assert abs(mixed.mean() - expected) < 4 * error < 0.2 * expected
    assert abs(means[0].mean() - means[1].mean()) > 10 * error  # members that differ


# Merging


def test_merge_is_the_concatenation_with_zeros_where_a_part_lacks_a_map(stylegan2, rng):
    G = stylegan2(16)
    parts = [Additive(depth).sample(G, n, rng) for depth, n in ((2, 1), (0, 2), (3, 3))]
    merged = merge(parts)
    assert torch.equal(merged.w, torch.cat([p.w for p in parts]))
    for i, maps in enumerate(merged.noise):
        assert torch.equal(maps, torch.cat([p.noise[i] for p in parts]))
    assert sorted(merged.add) == [1, 2, 3]
    assert torch.equal(merged.add[2][:1], parts[0].add[2])
    assert merged.add[2][1:3].abs().max() == 0
    assert torch.equal(merged.add[2][3:], parts[2].add[2])
    assert merged.add[3][:3].abs().max() == 0
    images = torch.cat([Additive(3).synthesize(G, p) for p in parts])
    torch.testing.assert_close(Additive(3).synthesize(G, merged), images)


def test_merge_of_one_part_is_the_part(pggan, rng):
    part = MultiCode(3, 2).sample(pggan(16), 2, rng)
    assert merge([part]) is part


# Families from yaml


def test_family_weights_are_shares_and_a_mixture_is_one_space():
    family = additive([0, 2], sigma=0.5, weights=[3, 1])
    assert family.spaces == (Additive(0, 0.5), Additive(2, 0.5))
    assert family.weights == (0.75, 0.25)
    mixed = multicode([1, 10, 20], block=4, weights=[1, 1, 2], mixture=True, group=3)
    members = (MultiCode(1, 4), MultiCode(10, 4), MultiCode(20, 4))
    assert mixed.spaces == (Mixture(members, (1.0, 1.0, 2.0), 3),)
    assert mixed.weights == (1.0,)
    assert mixed.spaces[0].names == ("N=1", "N=10", "N=20")


@pytest.mark.parametrize("build", [additive, lambda *a, **k: multicode(*a, block=1, **k)])
@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "must name members, each once"),
        ([1, 1], None, "must name members, each once"),
        ([1, 2], [1.0], "one number for each"),
        ([1, 2], [1.0, -1.0], "none negative"),
        ([1, 2], [0.0, 0.0], "not all zero"),
    ],
)
def test_bad_families_are_an_error(build, members, weights, message):
    with pytest.raises(ValueError, match=message):
        build(members, weights=weights)


# Errors


def test_bad_members_are_an_error(stylegan2, pggan):
    with pytest.raises(ValueError, match="depth=-1"):
        Additive(-1)
    with pytest.raises(ValueError, match="sigma=-2"):
        Additive(1, sigma=-2)
    with pytest.raises(ValueError, match="num_codes=0"):
        MultiCode(0)
    with pytest.raises(ValueError, match="block=0"):
        MultiCode(2, 0)
    with pytest.raises(ValueError, match="fade_in='first' must be mixed or last"):
        multicode([2], 1, fade_in="first")
    for space in (Additive(4), Mixture((Additive(0), Additive(4)))):
        with pytest.raises(ValueError, match=r"after block 4, the generator has 3 blocks"):
            space.check(stylegan2(16))
    with pytest.raises(ValueError, match="block=4 is past the last of 3 blocks"):
        MultiCode(2, 4).check(pggan(16))
    with pytest.raises(ValueError, match=r"fade_in=last .* StyleGAN2Generator reads styles in"):
        Mixture((MultiCode(2, 1, fade_in="last"),)).check(stylegan2(16))
    Additive(3).check(stylegan2(16))
    MultiCode(20, 3).check(pggan(16))


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ((), None, "cannot share a pass"),
        ((Additive(0), MultiCode(2)), None, "cannot share a pass"),
        ((Additive(0), Additive(1, relative=True)), None, "cannot share a pass"),
        ((MultiCode(1, 2), MultiCode(2, 3)), None, "cannot share a pass"),
        ((MultiCode(1, 2), MultiCode(2, 2, "last")), None, "cannot share a pass"),
        (ADDITIVE[:2], (1,), "must be 2 numbers"),
        (ADDITIVE[:2], (1, -1), "none negative"),
        (ADDITIVE[:2], (0, 0), "not all zero"),
    ],
)
def test_bad_mixtures_are_an_error(members, weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture(members, weights)


def test_names_tell_members_apart():
    names = Mixture(ADDITIVE).names + Mixture(CODES).names
    assert names == ("G^0", "G^1", "G^2", "G^3", "N=1", "N=3", "N=5")
    assert Latents(torch.zeros(1, 2)).member == ()


def test_a_figure_shows_the_members_of_the_families_and_those_within_them_once():
    vanilla, ilo = additive([0]), additive([0, 2], sigma=0.5, mixture=True)
    codes, maps = multicode([1, 3], block=1), [Additive(0), Additive(1, 0.5), Additive(2, 0.5)]
    assert shown_members([vanilla]) == [Additive(0)]
    assert shown_members([vanilla, ilo]) == maps
    assert shown_members([vanilla, codes]) == [MultiCode(1, 1), MultiCode(3, 1)]
    assert shown_members([ilo, codes]) == [*maps, MultiCode(1, 1), MultiCode(3, 1)]


def test_a_family_says_what_training_drew_its_maps_with():
    family = additive([0, 2], sigma=0.5, relative=True, mixture=True)
    assert [family.map_scale(k) for k in range(4)] == [None, *[MapScale(0.5, True)] * 2, None]
    assert additive([0]).map_scale(1) is None
    assert multicode([1, 3], block=1).map_scale(1) is None


@pytest.mark.parametrize("mixture", [False, True])
def test_members_of_a_family_are_the_same_in_one_pass_and_in_several(mixture):
    family = multicode([1, 3], block=1, mixture=mixture)
    assert family.members == (MultiCode(1, 1), MultiCode(3, 1))
    assert [name for space in family.spaces for name in space.names] == ["N=1", "N=3"]
