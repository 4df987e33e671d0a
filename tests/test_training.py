"""Training: what a source is turned into, how a rate is scored, and that nothing stops it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_sources import every_cell, sources

from stingray_align import PoissonAutodecoder, embed
from stingray_align._files import write_tensors
from stingray_align.autodecoder import training
from stingray_align.autodecoder.batch import Cells, make_batch
from stingray_align.autodecoder.decoder import Decoder
from stingray_align.autodecoder.descriptors import (
    DESCRIPTORS, N_DESCRIPTORS, TIME_SHAPES, descriptor_loss, descriptors)
from stingray_align.autodecoder.likelihood import (
    expected_log_likelihood, log_density, log_likelihood)
from stingray_align.autodecoder.training import (
    augment, held_out_gain, redraw, show, with_gaps, with_other_areas)
from stingray_align.datasets import stream as stream_module
from stingray_align.datasets.stream import RUNS, TARGETS, simulate_with_truth
from stingray_align.errors import ModelFileError
from stingray_align.photons import BAND_OF_CHANNEL, N_TIME_BINS, Photons

#: Phases of 16, 1, 8, 7, 2, 2, 12 and 40 steps, of which the second is "mixture".
SMALL = dict(n_latent=4, n_hidden=16, n_rank=2, n_steps=16, n_refinement_steps=8,
             n_posterior_steps=2, batch_size=16, seed=3)


def same(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module", autouse=True)
def fewer_sources():
    """To prepare for the last phase."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.quantities.Measurements, "PER_STEP", 4)
        yield


@pytest.fixture(scope="module")
def simulated():
    """A chunk of simulated sources with their truth."""
    return simulate_with_truth(11, 0)


@pytest.fixture(scope="module")
def fitted():
    return PoissonAutodecoder(**SMALL).fit(sources(40), progress=False)


# -- new sources from old ones --------------------------------------------------------------------

def counts_per_run(photons):
    return photons.counts().sum(axis=2).reshape(len(photons), RUNS, -1).sum(axis=2)


def expected_per_bin(photons, truth):
    """Expected photons in each time bin, shape (n, 512)."""
    steady = photons.exposed / photons.exposed.sum(axis=1, keepdims=True)
    share = np.concatenate([truth.share.astype(float) / N_TIME_BINS, steady[:, None]], axis=1)
    return np.einsum("nkt,nk->nt", share, truth.expected.sum(axis=2))


def surprise(photons, truth):
    """Chi square per degree of freedom of the counts in eight parts of each window."""
    expected = expected_per_bin(photons, truth).reshape(len(photons), 8, -1).sum(axis=2)
    seen = photons.counts().sum(axis=2).reshape(expected.shape + (-1,)).sum(axis=2)
    enough = expected > 20
    return ((seen - expected)[enough] ** 2 / expected[enough]).mean()


def test_augmentation_moves_photons_exposure_and_truth_together(simulated):
    photons, truth = simulated
    moved, moved_truth = augment(photons, truth, np.random.default_rng(3))
    assert_array_equal(moved.n_photons, photons.n_photons)
    assert_allclose(moved.exposure, photons.exposure, rtol=1e-6)
    assert (np.abs(moved.phase - photons.phase) > 1e-3).mean() > 0.2
    in_gap = moved.exposed[moved.source_index, moved.time_bin] == 0
    assert in_gap.mean() < 0.002  # rounding at a border only
    assert 0.8 < surprise(photons, truth) < 1.2 and 0.8 < surprise(moved, moved_truth) < 1.2
    assert surprise(moved, truth) > 3  # the truth had to move
    assert_array_equal(np.sort(moved_truth.share), np.sort(truth.share))
    assert_array_equal(np.sort(moved_truth.log_relative_rate), np.sort(truth.log_relative_rate))


def rate_in_cells(truth):
    """Expected photons of 0.5-7 keV in the bin of each kept cell, over the window's mean."""
    bins = np.arange(RUNS) * 4 + truth.cell // 8
    share = np.take_along_axis(truth.share.astype(float), bins[:, None], axis=2)
    return share, bins


def test_kept_rates_move_with_their_cells(simulated):
    """Of sources without gaps, the rate that is kept is close to that of its time bin."""
    photons, truth = simulated
    whole = (photons.exposed > 0.99).all(axis=1) & (truth.time_shape != TIME_SHAPES.index("bursts"))
    photons, truth = photons[whole], truth[whole]

    def correlation(photons, truth):
        expected = expected_per_bin(photons, truth)
        varies = expected.std(axis=1) > 0.3 * expected.mean(axis=1)
        of_bin = np.take_along_axis(expected, rate_in_cells(truth)[1], axis=1)
        of_bin = np.log(of_bin / expected.mean(axis=1, keepdims=True))
        return np.corrcoef(of_bin[varies].ravel(),
                           truth.log_relative_rate[varies].astype(float).ravel())[0, 1]

    moved, moved_truth = augment(photons, truth, np.random.default_rng(3))
    assert correlation(photons, truth) > 0.9
    assert_allclose(correlation(moved, moved_truth), correlation(photons, truth), atol=0.02)


def test_gaps_take_their_photons_and_their_share_of_the_truth(simulated):
    photons, truth = simulated
    cut, cut_truth = with_gaps(photons, truth, np.random.default_rng(1))
    lost = cut.n_photons < photons.n_photons
    assert 0.15 < lost.mean() < 0.35
    whole = cut.exposure == photons.exposure
    assert_array_equal(cut.n_photons[whole], photons.n_photons[whole])
    assert_allclose(cut_truth.expected[whole], truth.expected[whole], rtol=1e-3)
    assert_allclose(cut_truth.log_relative_rate[whole], truth.log_relative_rate[whole], atol=5e-3)
    # No photon without exposure, but at a gap's border by rounding.
    assert (cut.exposed[cut.source_index, cut.time_bin] > 0).mean() > 0.998
    assert 0.8 < surprise(cut[lost], cut_truth[lost]) < 1.2
    assert_allclose(cut.background[lost] * photons.exposure[lost, None],
                    photons.background[lost] * cut.exposure[lost, None], rtol=1e-4)
    # The rate itself is as it was: what it is compared with is now the mean of what is left.
    before, after = (t.expected[:, :, :19].sum(axis=(1, 2)) / p.exposure
                     for p, t in ((photons, truth), (cut, cut_truth)))
    change = (truth.log_relative_rate.astype(float)
              - cut_truth.log_relative_rate.astype(float)).mean(axis=1)
    assert_allclose(change, np.log(after / before), atol=0.01)


def test_a_sum_varies_more_without_its_steady_part(simulated, monkeypatch):
    """A hard component pulsates above a steady soft one, of which three quarters are lost."""
    photons, truth = simulated[0][:2].replace(exposed=np.ones((2, 512), np.float32)), simulated[1]
    at = list(TARGETS).index("fractional_variability")
    wave = np.sin(2 * np.pi * np.arange(512) / 64)
    expected, targets = np.zeros((2, 3, 20), np.float32), truth.targets[:2].copy()
    expected[:, 0, 0] = expected[:, 1, 12] = 100
    # The rms of the sum; that of the second source is mostly of what bins do not show.
    targets[:, at] = np.log10([0.25 / np.sqrt(2), 0.9])
    truth = replace(
        truth[np.arange(2)], expected=expected, targets=targets,
        share=np.stack([np.ones((2, 512)), np.tile(1 + 0.5 * wave, (2, 1))], axis=1))
    lost = np.ones((2, 20), np.float32)
    lost[:, 0] = 0.25
    monkeypatch.setattr(training, "other_transmissions", lambda n, rng: lost)
    _, seen = with_other_areas(photons, truth, np.random.default_rng(0))
    assert_allclose(seen.targets[0, at], np.log10(100 / 125 * 0.5 / np.sqrt(2)), rtol=1e-5)
    assert seen.targets[1, at] == targets[1, at]


def test_other_areas_take_their_photons_and_change_the_truth(simulated):
    photons, truth = simulated
    seen, seen_truth = with_other_areas(photons, truth, np.random.default_rng(2))
    other = seen.has_arf
    assert 0.65 < other.mean() < 0.85
    assert_array_equal(seen.n_photons[~other], photons.n_photons[~other])
    assert_array_equal(seen_truth.targets[~other], truth.targets[~other])
    assert_allclose(seen.background[~other], photons.background[~other], rtol=1e-5)
    # Photons, background and truth follow the area, of which the largest part stays.
    share = seen.arf[other] / photons.area[other]
    assert_allclose(share.max(axis=1), 1, rtol=1e-5)
    assert share.min() < 0.01 and np.median(share) < 0.9
    assert_allclose(seen_truth.expected[other], truth.expected[other] * share[:, None], rtol=1e-4,
                    atol=1e-6)
    counts = seen.counts().sum(axis=1)[other]
    expected = seen_truth.expected[other].sum(axis=1)
    assert 0.9 < np.mean((counts - expected) ** 2) / expected.mean() < 1.1
    known = other & (photons.background > 0).all(axis=1)
    ratio = seen.background[known] / photons.background[known]
    for band in range(4):
        in_band = (seen.arf[known] / photons.area[known])[:, BAND_OF_CHANNEL == band]
        assert np.all((ratio[:, band] >= in_band.min(axis=1) - 1e-5)
                      & (ratio[:, band] <= in_band.max(axis=1) + 1e-5))
    columns = {name: k for k, name in enumerate(TARGETS)}
    varies = columns["fractional_variability"]
    assert_allclose(seen_truth.targets[other, varies], truth.targets[other, varies], atol=0.3)
    assert np.mean(seen_truth.targets[other, varies] != truth.targets[other, varies]) > 0.2
    steady = truth.targets[:, varies] == -3
    assert steady.sum() > 20 and np.all(seen_truth.targets[steady, varies] == -3)
    for name in ("n_h", "kT", "photon_index", "timescale"):
        assert_array_equal(seen_truth.targets[:, columns[name]], truth.targets[:, columns[name]])
    own = seen_truth.expected[:, :2].sum(axis=1)
    hard, soft = own[:, 10:19].sum(axis=1), own[:, :10].sum(axis=1)
    known = np.isfinite(truth.targets[:, columns["hardness"]])
    assert_allclose(seen_truth.targets[known, columns["hardness"]],
                    ((hard - soft) / (hard + soft))[known], atol=1e-4)


def test_sources_without_truth_are_changed_in_the_same_way(simulated):
    photons, truth = simulated
    photons, truth = photons[:30], truth[np.arange(30)]
    for change in (augment, with_gaps):
        with_truth, _ = change(photons, truth, np.random.default_rng(5))
        without, nothing = change(photons, None, np.random.default_rng(5))
        assert nothing is None
        assert_array_equal(without.phase, with_truth.phase)
        assert_array_equal(without.exposed, with_truth.exposed)


def test_shown_and_other_photons_are_all_photons():
    photons = sources(200)
    shown, others = show(photons, np.random.default_rng(0), tiny=0.3, everything=0.2)
    assert_array_equal(shown.n_photons + others.n_photons, photons.n_photons)
    bright = photons.n_photons > 100
    all_shown = others.n_photons[bright] == 0
    few_shown = shown.n_photons[bright] < 0.2 * photons.n_photons[bright]
    assert 0.1 < all_shown.mean() < 0.3 and 0.1 < few_shown.mean() < 0.4


# -- scores ---------------------------------------------------------------------------------------

def random_shape(batch, seed=0):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return Decoder(8, 32)(3 * torch.randn(len(batch.exposed), 8), batch.log_area)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_expected_log_likelihood_is_the_sum_over_all_cells(step):
    batch = make_batch(sources(5, background=True))
    batch.exposed.clamp_(min=1e-3)
    shape = random_shape(batch)
    density = torch.rand(5, 512, 20, generator=torch.Generator().manual_seed(1))
    dense = log_density(shape, batch, every_cell(5))[0].reshape(5, 512, 20)
    first = step - 1
    part = density[:, first::step]
    by_hand = (part * dense[:, first::step]).sum(dim=(1, 2))
    found = expected_log_likelihood(shape, batch, part, first=first, step=step)
    assert_allclose(found, by_hand, rtol=1e-5)


def test_score_by_truth_is_the_mean_score_of_many_other_photons(simulated):
    photons, truth = simulated
    chosen = np.flatnonzero((photons.n_photons > 20) & (photons.exposed > 0).all(axis=1))[:4]
    photons, truth = photons[chosen], truth[chosen]
    batch = make_batch(photons)
    shape = random_shape(batch)
    score = training._Expected(truth, batch.exposed, np.random.default_rng(0), 1)
    assert_allclose(score.density.sum(dim=(1, 2)), 1, rtol=2e-3)
    found = score.per_photon(shape, batch)
    # Other photons of the same sources, drawn from the true density.
    dense = log_density(shape, batch, every_cell(4))[0].reshape(4, -1).double().numpy()
    rng = np.random.default_rng(0)
    for i in range(4):
        p = score.density[i].reshape(-1).double().numpy()
        values = dense[i][rng.choice(p.size, 200_000, p=p / p.sum())]
        assert abs(values.mean() - found[i].item()) < 4 * values.std() / 200_000**0.5 + 2e-3


def test_scores_of_every_second_and_fourth_bin_are_right_on_average(simulated):
    photons, truth = simulated
    photons, truth = photons[:40], truth[np.arange(40)]
    batch = make_batch(photons)
    shape = random_shape(batch)
    whole = training._Expected(truth, batch.exposed, np.random.default_rng(0), 1)
    for step in (2, 4):
        parts = {}
        for seed in range(30):
            part = training._Expected(truth, batch.exposed, np.random.default_rng(seed), step)
            parts[part.first] = part.per_photon(shape, batch)
        assert sorted(parts) == list(range(step))
        assert_allclose(torch.stack(list(parts.values())).mean(dim=0),
                        whole.per_photon(shape, batch), rtol=1e-4, atol=1e-4)


def test_true_shape_scores_best(simulated):
    """No shape has a higher expected log-likelihood than the truth: Gibbs' inequality."""
    photons, truth = simulated
    photons, truth = photons[:60], truth[np.arange(60)]
    batch = make_batch(photons)
    score = training._Expected(truth, batch.exposed, np.random.default_rng(0), 1)
    density = score.density
    best = torch.special.xlogy(density, density).sum(dim=(1, 2))
    for seed in range(3):
        assert (score.per_photon(random_shape(batch, seed), batch) < best + 1e-3).all()


def test_held_out_score_is_the_likelihood_of_the_photons_not_shown():
    photons = sources(10, background=True)
    batch, score, others = training._shown(photons, None, np.random.default_rng(0), step=2)
    shape = random_shape(batch)
    found = score.per_photon(shape, batch) * torch.from_numpy(others.n_photons.clip(1))
    assert_allclose(found, log_likelihood(shape, batch, Cells.from_photons(others)), rtol=1e-5)


def test_descriptors_are_named_as_the_truth_they_learn():
    assert TIME_SHAPES == stream_module.TIME_SHAPES == tuple(sorted(TIME_SHAPES))
    names = [("log_" if dex else "") + name for name, dex in TARGETS.items()]
    assert list(DESCRIPTORS)[:7] == [f"estimated_{name}" for name in names]
    made = descriptors(torch.randn(5, N_DESCRIPTORS))
    assert made.shape == (5, len(DESCRIPTORS))
    assert_allclose(made[:, 14:].exp().sum(dim=1), 1, rtol=1e-4)


def test_descriptor_loss_is_the_likelihood_of_what_is_known():
    raw = torch.randn(3, N_DESCRIPTORS, generator=torch.Generator().manual_seed(0))
    raw.requires_grad_()
    targets = torch.full((3, 7), torch.nan)
    shapes = torch.tensor([0, 5, 12])
    nothing_known = descriptor_loss(raw, targets, shapes)
    assert_allclose(nothing_known.item(), torch.nn.functional.cross_entropy(
        raw[:, 14:], shapes).item())
    nothing_known.backward()
    assert (raw.grad[:, :14] == 0).all()
    # The estimate in physical units is right where its own term is smallest.
    targets[1, 3] = descriptors(raw.detach())[1, 3]
    at_best = descriptor_loss(raw, targets, shapes) - nothing_known
    assert_allclose(at_best.item(), raw[1, 10].item() / 3, atol=1e-6)


def test_redrawn_photons_follow_the_rate_that_is_their_truth(fitted):
    photons = sources(3, n_photons=(4000, 4001), background=True)
    drawn, truth = redraw(fitted.networks_, photons, np.random.default_rng(0))
    assert_allclose(drawn.n_photons, photons.n_photons, rtol=0.1)
    assert drawn.exposed[drawn.source_index, drawn.time_bin].min() > 0
    inferred = fitted.infer(photons)
    with torch.no_grad():
        rates = training.refine(fitted.networks_, make_batch(photons)).shape
    seen = drawn.counts().sum(axis=2).reshape(3, 16, -1).sum(axis=2)
    from stingray_align.autodecoder.model import cell_rates

    expected = cell_rates(inferred.batch, rates).sum(dim=2).numpy() * photons.exposed
    expected = expected.reshape(3, 16, -1).sum(axis=2) * 2e4 / N_TIME_BINS
    enough = expected > 20
    assert 0.5 < ((seen - expected)[enough] ** 2 / expected[enough]).mean() < 1.6
    bins = np.arange(RUNS) * 4 + truth.cell // 8
    relative = cell_rates(inferred.batch, rates).sum(dim=2).numpy()
    relative *= (photons.exposure / (photons.n_photons + 0.5))[:, None]
    assert_allclose(truth.log_relative_rate,
                    np.log(np.take_along_axis(relative, bins, axis=1)), atol=1e-3)
    names = list(TARGETS)
    assert np.isnan(truth.targets).sum(axis=1).tolist() == [len(names) - 2] * 3
    assert (np.abs(truth.targets[:, names.index("hardness")]) < 1).all()
    assert_allclose(truth.expected.sum(axis=(1, 2)), photons.n_photons, rtol=1e-3)


# -- the loop -------------------------------------------------------------------------------------

def test_every_phase_trains_its_own_networks_alone(monkeypatch):
    monkeypatch.setattr(training, "EVERY", 4)
    states, reported = [], training._Run.report

    def kept(run, bar):
        states.append({k: v.clone() for k, v in run.networks.state_dict().items()})
        reported(run, bar)

    monkeypatch.setattr(training._Run, "report", kept)
    parameters = SMALL | dict(n_steps=40, n_refinement_steps=44, n_posterior_steps=4)
    model = PoissonAutodecoder(**parameters).fit(sources(40), progress=False)
    assert [line["phase"] for line in model.curve_] == (
        ["first pass"] * 10 + ["mixture"] + ["refinement"] * 11 + ["finer refinement"] * 10
        + ["intervals", "posterior"] + ["experts"] * 6 + ["quantities"] * 20)
    assert [line["step"] for line in model.curve_] == list(range(4, 241, 4))
    for number, trained in ((10, {"mixture"}), (11, {"refinement"}), (22, {"refinement"}),
                            (32, {"refinement"}), (33, {"spread"}), (34, {"experts"}),
                            (35, {"experts"}), (40, {"quantities"}), (41, {"quantities"})):
        changed = {name.split(".")[0] for name, value in states[number].items()
                   if not torch.equal(value, states[number - 1][name])}
        assert trained <= changed
        # What is not trained is at most set to its average of the phase before.
        before = {"mixture", "refinement", "spread"} | ({"experts"} if number > 39 else set())
        assert number == 10 or changed <= trained | before
    assert all(np.isfinite([line["loss"], line["gain"]]).all() for line in model.curve_)


def test_training_raises_the_held_out_gain(monkeypatch):
    monkeypatch.setattr(training, "WARM_UP", 10)
    model = PoissonAutodecoder(**SMALL | dict(n_hidden=32, n_steps=120, n_refinement_steps=4))
    model.fit(sources(150, n_photons=(300, 400)), progress=False)
    test = sources(60, seed=9, n_photons=(300, 400))
    phase = SimpleNamespace(predict=training._first_pass)
    start, end = (held_out_gain(networks, networks.state_dict(), test, phase)
                  for networks in (model._build(), model.networks_))
    assert end > start + 0.01 and end > 0


def test_a_few_event_lists_without_truth_are_enough():
    from stingray_align.datasets import simulate_population

    events = simulate_population(24, seed=2, counts="bright", summaries=0).event_lists
    model = PoissonAutodecoder(**SMALL).fit(events, progress=False)
    before = model._build().state_dict()
    for name in ("refinement.log_rate_intervals.weight", "quantities.of_source.outputs.weight",
                 "quantities.of_channel.outputs.weight",
                 "refinement.sub_bins.outer.weight", "spread.scale.weight",
                 "decoder.heads.weight", "experts.weights.outputs.weight",
                 "experts.intervals.outputs.weight"):
        assert not torch.equal(before[name], model.networks_.state_dict()[name]), name
    assert model.training_["n_sources"] == 24
    found = model.quantiles(Photons.from_events(events[:3]), [0.16, 0.84])
    assert all(np.isfinite(value).all() for value in found.values())
    assert np.isfinite(embed(events[0], model).vector).all()


def test_fit_is_the_same_for_the_same_seed_and_after_inference(fitted):
    fitted.infer(sources(2))
    again = PoissonAutodecoder(**SMALL).fit(sources(40), progress=False)
    same(fitted.networks_.state_dict(), again.networks_.state_dict())


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    write_tensors(checkpoint, {"now.x": np.zeros(1)}, kind="checkpoint", version=4, about={
        "parameters": {}, "source": {}, "step": 5, "curve": []})
    with pytest.raises(ModelFileError, match="other parameters"):
        PoissonAutodecoder(**SMALL).fit(sources(40), checkpoint=checkpoint, progress=False)
    assert checkpoint.exists()


def test_a_checkpoint_of_other_phases_is_refused(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    write_tensors(checkpoint, {"now.x": np.zeros(1)}, kind="checkpoint", version=3, about={})
    with pytest.raises(ModelFileError, match="version.*stingray-align train"):
        PoissonAutodecoder(**SMALL).fit(sources(40), checkpoint=checkpoint, progress=False)
    assert checkpoint.exists()


def test_a_single_source_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        PoissonAutodecoder(**SMALL).fit(sources(1), progress=False)


@pytest.mark.parametrize("n, changes", [(2, {}), (3, {"batch_size": 1})])
def test_the_smallest_trainings_come_to_an_end(n, changes):
    model = PoissonAutodecoder(**SMALL | changes)
    model.fit(sources(n, n_photons=(40, 60)), progress=False)
    assert all(np.isfinite([line["loss"], line["gain"]]).all() for line in model.curve_)
    assert np.isfinite(model.band_rates(sources(2))).all()


class Killed(Exception):
    pass


def killed_at(step, photons, checkpoint, **changes):
    """A training that does not live longer than some steps."""
    advance = training._Run.advance

    def killed(run):
        if run.step == step:
            raise Killed
        advance(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "EVERY", 4)
        patch.setattr(training._Run, "advance", killed)
        PoissonAutodecoder(**SMALL | changes).fit(photons, checkpoint=checkpoint, progress=False)


@pytest.mark.parametrize("change", [
    lambda photons: photons[::-1],
    lambda photons: photons.replace(channel=19 - photons.channel)], ids=["order", "energies"])
def test_a_checkpoint_of_other_photons_of_equal_number_is_refused(tmp_path, change):
    checkpoint = tmp_path / "run.safetensors"
    killed_at(10, sources(40), checkpoint)
    with pytest.raises(ModelFileError, match="other parameters or sources"):
        PoissonAutodecoder(**SMALL).fit(change(sources(40)), checkpoint=checkpoint,
                                        progress=False)


def test_sources_that_another_training_prepared_are_made_again(tmp_path, fitted):
    checkpoint = tmp_path / "run.safetensors"
    killed_at(50, sources(40, seed=8), checkpoint, seed=4)
    left = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run.prepared/*/*")}
    assert len(left) == 2
    killed_at(50, sources(40, seed=8), checkpoint, seed=4)
    assert left == {path: path.stat().st_mtime_ns for path in left}  # of the same one they are not
    checkpoint.unlink()
    model = PoissonAutodecoder(**SMALL).fit(sources(40), checkpoint=checkpoint, progress=False)
    same(fitted.networks_.state_dict(), model.networks_.state_dict())
    assert not any(tmp_path.glob("run.prepared"))


def test_each_checkpoint_has_files_of_its_own():
    for beside in (training._prepared_directory, training._curve_file):
        names = {beside(f"runs/{name}").name for name in
                 ("lr0.01", "lr0.001", "lr0.001.safetensors.2", "lr0.02.safetensors")}
        assert len(names) == 4
    assert training._curve_file("runs/a.b.safetensors").as_posix() == "runs/a.b.curve.ecsv"


@pytest.mark.parametrize("kind, prepare", [
    (training.Weighed, "prepare_evidence"),
    (training.quantities.Measurements, "prepare_quantities")])
def test_gains_of_prepared_sources_are_of_those_held_out(monkeypatch, kind, prepare):
    made, scored = [], []
    make, gain = getattr(training, prepare), kind.gain

    def noted(model, source, number, size):
        made.append((source, make(model, source, number, size)))
        return made[-1][1]

    def looked_at(prepared, network):
        scored.append(list(prepared.held_out()))
        return gain(prepared, network)

    monkeypatch.setattr(training, prepare, noted)
    monkeypatch.setattr(kind, "gain", looked_at)
    photons = sources(40)
    model = PoissonAutodecoder(**SMALL).fit(photons, progress=False)
    (learned, _), (apart, examples) = made
    for source, n in ((learned, 36), (apart, 4)):
        assert len(source.photons) == n
    assert_array_equal(apart.photons.phase, learned.held_out.phase)
    [[one]] = scored
    for name, values in one.items():
        assert_array_equal(values, examples[name].astype(np.float32))
    assert model.curve_[-1]["gain"] != 0
