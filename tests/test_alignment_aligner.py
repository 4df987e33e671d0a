"""The aligner on pairs that share a planted truth of few dimensions."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from stingray_align.alignment import Aligner
from stingray_align.alignment.aligner import _slot_of_column
from stingray_align.alignment.fitting import Batches, Pairs
from stingray_align.errors import ModelFileError
from stingray_align.text.slots import N_SLOTS, slot_names

SMALL = dict(n_shared=16, n_hidden=64, dropout=0.2, n_slots=0, n_steps=150, batch_size=128)


def planted(n, seed=0, n_truth=4, n_events=12, n_prose=10, n_slots=0, noise=0.1):
    """Events and texts are different nonlinear views of one truth; slots state it outright."""
    world = np.random.default_rng(100)
    to_events = world.normal(size=(n_truth, n_events))
    to_prose = world.normal(size=(n_truth, n_prose))
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, n_truth))
    events = np.tanh(truth @ to_events / 2) + noise * rng.normal(size=(n, n_events))
    texts = np.tanh(truth @ to_prose / 2) + noise * rng.normal(size=(n, n_prose))
    return events, np.concatenate([texts, truth[:, :n_slots]], axis=1)


def recall(aligner, events, texts, share=0.05):
    """Share of events whose own text is among the nearest ``share`` of all texts."""
    similarity = aligner.transform_events(events) @ aligner.transform_texts(texts).T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return float((rank < share * len(events)).mean())


@pytest.fixture(scope="module")
def fitted():
    return Aligner(**SMALL).fit(*planted(1000))


def test_recovers_a_planted_truth_on_unseen_pairs(fitted):
    events, texts = planted(400, seed=1)
    assert recall(fitted, events, texts) > 0.7  # chance: 0.05
    shuffled = np.random.default_rng(0).permutation(len(texts))
    assert recall(fitted, events, texts[shuffled]) < 0.15


def test_shuffled_pairs_teach_nothing():
    events, texts = planted(1000)
    texts = np.random.default_rng(1).permutation(texts)
    aligner = Aligner(**SMALL).fit(events, texts)
    assert recall(aligner, *planted(400, seed=1)) < 0.15


def test_projections_are_unit_float32_and_each_row_stands_alone(fitted):
    events, texts = planted(50, seed=2)
    for transform, values in ((fitted.transform_events, events), (fitted.transform_texts, texts)):
        out = transform(values)
        assert out.dtype == np.float32 and out.shape == (50, 16)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(transform(values[::-1])[::-1], out, atol=1e-6)
        np.testing.assert_allclose(transform(values[7:8])[0], out[7], atol=1e-6)
        assert transform(values[:0]).shape == (0, 16)


def test_follows_the_estimator_contract(fitted):
    aligner = Aligner(n_steps=3, n_shared=5)
    assert aligner.get_params()["n_shared"] == 5
    assert not [name for name in vars(aligner) if name.endswith("_")]
    assert clone(aligner).get_params() == aligner.get_params()
    with pytest.raises(NotFittedError, match="fit"):
        aligner.transform_events(np.zeros((1, 3)))
    steps, losses = zip(*fitted.history_)
    assert losses[steps.index(fitted.best_step_)] == min(losses)
    assert min(losses) < losses[0]


def test_same_seed_same_result_and_global_state_is_untouched():
    import torch

    events, texts = planted(200)
    options = SMALL | {"n_steps": 10}
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    precision = torch.get_float32_matmul_precision()
    first = Aligner(**options).fit(events, texts)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.get_float32_matmul_precision() == precision
    torch.manual_seed(99)
    second = Aligner(**options).fit(events, texts)
    other = Aligner(**options | {"seed": 1}).fit(events, texts)
    np.testing.assert_array_equal(first.transform_events(events), second.transform_events(events))
    assert np.abs(first.transform_events(events) - other.transform_events(events)).max() > 0.01


def test_outliers_do_not_explode():
    events, texts = planted(300)
    events[::50] *= 1e8
    aligner = Aligner(**SMALL | {"n_steps": 60}).fit(events, texts)
    clean, own = planted(200, seed=1)
    assert recall(aligner, clean, own) > 0.3
    assert np.isfinite(aligner.transform_events(np.full((1, 12), 1e30))).all()


def test_the_weights_that_rank_held_out_groups_best_are_kept():
    events, texts = planted(300)
    kept = Aligner(**SMALL | {"n_steps": 90}).fit(events, texts)
    scores = dict(kept.history_)
    assert scores[kept.best_step_] == min(scores.values())
    held_out = np.random.default_rng(0).permutation(300)[:30]
    similarity = (kept.transform_events(events[held_out])
                  @ kept.transform_texts(texts[held_out]).T)
    own = np.diag(similarity)
    ranks = [1 + (s > own[:, None]).sum(axis=1) for s in (similarity, similarity.T)]
    assert np.log(ranks).mean() == pytest.approx(scores[kept.best_step_], abs=0.02)


def test_one_goes_on_from_another(fitted):
    few, options = planted(60, seed=3), SMALL | {"n_steps": 40, "learning_rate": 5e-4}
    unseen = planted(400, seed=1)
    alone = Aligner(**options).fit(*few)
    further = Aligner(**options | {"n_hidden": None}).fit(*few, start=fitted)
    assert recall(further, *unseen) > recall(alone, *unseen) + 0.2
    assert further.sizes_.n_hidden == 64  # as of the first
    assert (further.transform_events(unseen[0]) != fitted.transform_events(unseen[0])).any()
    # Without a step it is the first, which is not changed by any of this.
    still = Aligner(**options | {"learning_rate": 0.0}).fit(*few, start=fitted)
    np.testing.assert_allclose(still.transform_texts(unseen[1]), fitted.transform_texts(unseen[1]),
                               atol=1e-6)
    assert still.logit_scale_ == pytest.approx(fitted.logit_scale_)


def test_only_the_events_learn_where_texts_are_kept(fitted, tmp_path, monkeypatch):
    """Events of another autodecoder: the same numbers with another sign."""
    events, texts = planted(1000)
    unseen, own = planted(400, seed=1)
    options = SMALL | {"n_steps": 120}
    adapted = Aligner(**options).fit(-events, texts, start=fitted, keep_texts=True)
    np.testing.assert_array_equal(adapted.transform_texts(own), fitted.transform_texts(own))
    assert recall(fitted, -unseen, own) < 0.3
    assert recall(adapted, -unseen, own) > 0.6
    more = dict(start=fitted, keep_texts=True, checkpoint=tmp_path / "half")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 61)
        Aligner(**options).fit(-events, texts, **more)
    assert (tmp_path / "half").exists()
    resumed = Aligner(**options).fit(-events, texts, **more)
    np.testing.assert_array_equal(resumed.transform_events(unseen),
                                  adapted.transform_events(unseen))
    with pytest.raises(ValueError, match="give start"):
        Aligner(**options).fit(events, texts, keep_texts=True)


@pytest.mark.parametrize("change", [{"n_shared": 8}, {"n_hidden": 32}])
def test_one_of_other_sizes_cannot_go_on(fitted, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Aligner(**SMALL | change).fit(*planted(60), start=fitted)


def test_one_of_other_vectors_cannot_go_on(fitted):
    with pytest.raises(ValueError, match="n_events_in_ is 9 here and 12 there"):
        Aligner(**SMALL).fit(*planted(60, n_events=9), start=fitted)
    with pytest.raises(NotFittedError):
        Aligner(**SMALL).fit(*planted(60), start=Aligner(**SMALL))


def test_constant_and_rare_features_are_harmless():
    events, texts = planted(300)
    rare = np.zeros(len(events))
    rare[:5] = 1
    events = np.column_stack([events, np.full(len(events), 7.0), rare])
    aligner = Aligner(**SMALL | {"n_steps": 5}).fit(events, texts)
    assert np.isfinite(aligner.transform_events(events)).all()
    assert aligner._event_spread[12] == 1


def test_the_scale_of_a_feature_does_not_matter():
    events, texts = planted(300)
    rare = np.zeros(len(events))
    rare[:5] = 1
    events = np.column_stack([events, rare]).astype(np.float32)
    whole, tiny = (Aligner(**SMALL | {"n_steps": 5}).fit(scale * events, texts).transform_events(
        scale * events) for scale in np.float32([1, 2.0 ** -45]))
    np.testing.assert_array_equal(tiny, whole)


# -- groups ---------------------------------------------------------------------------------------


def test_rows_of_a_group_and_equal_texts_are_positives():
    texts = np.array([[1.0, 0], [2, 0], [1, 0], [3, 0]])
    pairs = Pairs(texts, texts, np.array([0, 0, 1, 2]))
    rows = np.arange(4)
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(pairs.positives(rows, rows), np.array(expected, bool))


def test_batches_pair_within_groups_and_visit_every_row():
    groups = np.repeat(np.arange(20), 3)
    rows = np.flatnonzero(groups % 4 > 0)  # others are held out
    batches = Batches(groups, rows, 15, np.random.default_rng(0))
    seen, partners = [], set()
    for _ in range(30):
        first, second = batches.draw()
        np.testing.assert_array_equal(groups[first], groups[second])
        assert np.isin(second, rows).all()
        seen.extend(first)
        partners.update(zip(first.tolist(), second.tolist()))
    counts = np.bincount(seen, minlength=60)
    np.testing.assert_array_equal(counts[rows], 10)
    assert counts.sum() == len(rows) * 10
    assert len(partners) > 100  # of 135: not always the text of the same row


def test_groups_keep_the_validation_set_apart():
    events, texts = planted(100)
    events, texts = np.repeat(events, 2, axis=0), np.repeat(texts, 2, axis=0)
    groups = np.repeat(np.arange(100), 2)
    seen = []

    class Spy(Aligner):
        def _train(self, data, loss, train, valid, rng, checkpoint=None):
            seen.append((train, valid, data.groups))
            super()._train(data, loss, train, valid, rng)

    Spy(**SMALL | {"n_steps": 2}).fit(events, texts, groups, validation_fraction=0.2)
    train, valid, ids = seen[0]
    assert len(valid) == 40 and len(train) == 160
    assert not set(ids[train]) & set(ids[valid])


def test_group_labels_may_be_names():
    events, texts = planted(60)
    names = np.repeat([f"source {i}" for i in range(20)], 3)
    numbers = np.repeat(np.arange(20), 3)
    options = SMALL | {"n_steps": 5}
    a = Aligner(**options).fit(events, texts, numbers).transform_events(events)
    order = np.argsort(np.unique(names, return_index=True)[1])  # names sort differently
    b = Aligner(**options).fit(events, texts, order[numbers]).transform_events(events)
    c = Aligner(**options).fit(events, texts, names).transform_events(events)
    assert a.shape == b.shape and np.isfinite(c).all()


# -- slots ----------------------------------------------------------------------------------------


def test_values_and_masks_of_a_slot_are_dropped_together():
    owner = dict(zip(slot_names(), _slot_of_column(N_SLOTS)))
    assert owner["photon_index"] == owner["photon_index known"]
    assert owner["class: polar"] == owner["class known"] == owner["class: dwarf nova"]
    assert owner["periodic"] == owner["periodic known"] != owner["variable"]
    aligner = Aligner(slot_dropout=0.5, prose_dropout=0.4)
    aligner.n_texts_in_ = 10 + N_SLOTS
    texts = np.ones((4000, 10 + N_SLOTS), np.float32)
    dropped = aligner._drop_parts(texts, np.random.default_rng(0))
    assert texts.min() == 1
    prose, slots = dropped[:, 0] > 0, dropped[:, 10:]
    assert (dropped[:, :10] == prose[:, None]).all()
    assert 0.17 < 1 - prose.mean() < 0.23
    assert (dropped.sum(axis=1) > 0).all()  # never both
    for slot in range(_slot_of_column(N_SLOTS).max() + 1):
        own = slots[:, _slot_of_column(N_SLOTS) == slot]
        assert (own == own[:, :1]).all()
    first = np.unique(_slot_of_column(N_SLOTS), return_index=True)[1]
    n_kept = slots[:, first].sum(axis=1)
    assert 0.47 < (n_kept == 0).mean() < 0.53
    assert 0.66 < n_kept[prose & (n_kept > 0)].mean() / len(first) < 0.74
    assert n_kept.max() == len(first)
    asked = n_kept[~prose] < 5  # a question; summaries seldom keep so few
    assert 0.43 < asked.mean() < 0.6
    assert set(n_kept[~prose][asked]) == {1, 2, 3, 4}


def test_a_text_without_slots_keeps_its_prose():
    aligner = Aligner()
    aligner.n_texts_in_ = 10 + N_SLOTS
    texts = np.hstack([np.ones((500, 10)), np.zeros((500, N_SLOTS))]).astype(np.float32)
    assert (aligner._drop_parts(texts, np.random.default_rng(0)) == texts).all()


def test_slots_help_and_prose_alone_still_works():
    events, texts = planted(1000, n_slots=4, noise=0.8)
    test_events, test_texts = planted(400, seed=1, n_slots=4, noise=0.8)
    bare = test_texts.copy()
    bare[:, 10:] = 0
    options = SMALL | {"n_slots": 4, "n_steps": 200}
    # The last weights of both: a validation set would pick those that suit bare prose.
    trained_with_drops = Aligner(**options).fit(events, texts, validation_fraction=0)
    never_without = Aligner(**options | {"slot_dropout": 0.0})
    never_without._drop_parts = lambda texts, rng: texts
    never_without.fit(events, texts, validation_fraction=0)
    assert recall(trained_with_drops, test_events, test_texts) > recall(
        trained_with_drops, test_events, bare) + 0.05
    assert recall(trained_with_drops, test_events, bare) > recall(
        never_without, test_events, bare) + 0.05
    assert recall(trained_with_drops, test_events, bare) > 0.2


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, message", [
    (lambda e, t: (np.where(e > e.max() - 1e-9, np.nan, e), t), "NaN"),
    (lambda e, t: (e, np.where(t > t.max() - 1e-9, np.inf, t)), "NaN or infinite"),
    (lambda e, t: (e[:-1], t), "rows are pairs"),
    (lambda e, t: (e[0], t), "table"),
    (lambda e, t: (e[:0], t[:0]), "at least one row"),
    (lambda e, t: (e[:1], t[:1]), "two"),
])
def test_refuses_bad_tables(change, message):
    with pytest.raises(ValueError, match=message):
        Aligner(**SMALL).fit(*change(*planted(30)))


@pytest.mark.parametrize("options, fit_options, message", [
    ({"n_steps": 0}, {}, "n_steps"),
    ({"n_slots": 10}, {}, "slots"),
    ({"dropout": 1.5}, {}, "dropout"),
    ({}, {"validation_fraction": 1.0}, "validation_fraction"),
    ({}, {"groups": [1, 2]}, "groups"),
    ({}, {"feature_names": ["a"]}, "feature names"),
])
def test_refuses_bad_parameters(options, fit_options, message):
    with pytest.raises(ValueError, match=message):
        Aligner(**SMALL | options).fit(*planted(30), **fit_options)


def test_refuses_vectors_of_another_model(fitted):
    with pytest.raises(ModelFileError, match="12.*autodecoder"):
        fitted.transform_events(np.zeros((1, 13)))
    with pytest.raises(ModelFileError, match="10.*encoder"):
        fitted.transform_texts(np.zeros((1, 11)))
    with pytest.raises(ValueError, match="row 1"):
        fitted.transform_events([[0.0] * 12, [np.nan] * 12])
    names = [f"f{i}" for i in range(12)]
    named = Aligner(**SMALL | {"n_steps": 2}).fit(*planted(30), feature_names=names)
    named.transform_events(np.zeros((1, 12)), feature_names=names)
    with pytest.raises(ModelFileError, match="'f1'.*'f0'"):
        named.transform_events(np.zeros((1, 12)), feature_names=[*names[1:], "f0"])


# -- files ----------------------------------------------------------------------------------------


def test_round_trip(fitted, tmp_path):
    path = tmp_path / "aligner.safetensors"
    fitted.save(path)
    again = Aligner.load(path)
    events, texts = planted(40, seed=3)
    np.testing.assert_array_equal(again.transform_events(events), fitted.transform_events(events))
    np.testing.assert_array_equal(again.transform_texts(texts), fitted.transform_texts(texts))
    assert again.get_params() == fitted.get_params()
    for name in ("history_", "best_step_", "logit_scale_", "feature_names_", "text_model_"):
        assert getattr(again, name) == getattr(fitted, name)
    again.save(path)  # replaces the first, and leaves no temporary file behind
    assert [p.name for p in tmp_path.iterdir()] == ["aligner.safetensors"]


def test_damaged_and_foreign_files(fitted, tmp_path):
    from safetensors.numpy import save_file

    good = tmp_path / "good.safetensors"
    fitted.save(good)
    data = good.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for content, message in [
        (data[:-50], "not a readable"), (b"", "not a readable"), (b"\0" * 64, "not a readable"),
        (data.replace(b'"version":"3"', b'"version":"7"'), "version '7'"),
        (data.replace(b"stingray-align aligner", b"stingray-align nothing"), "not a stingray"),
        (data.replace(b"event_centre", b"event_center"), "complete aligner"),
        (data.replace(b"n_shared", b"n_shaerd"), "complete aligner"),
    ]:
        assert content != data
        bad.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            Aligner.load(bad)
    save_file({"x": np.zeros(3)}, bad)
    with pytest.raises(ModelFileError, match="not a stingray-align aligner"):
        Aligner.load(bad)
    with pytest.raises(FileNotFoundError):
        Aligner.load(tmp_path / "absent.safetensors")


def test_an_interrupted_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "aligner.safetensors"
    fitted.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disc full")))
    with pytest.raises(OSError, match="disc full"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["aligner.safetensors"]


# -- interruptions --------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill_at(monkeypatch, step):
    """Let the training die in the middle of one step."""
    from stingray_align.alignment.fitting import Fit

    advance = Fit._advance

    def dying(self, data, augment):
        if self.step == step:
            raise Killed
        advance(self, data, augment)

    monkeypatch.setattr(Fit, "_advance", dying)


@pytest.mark.parametrize("step, loss", [(0, "infonce"), (3, "infonce"), (14, "siglip")])
def test_killed_at_any_step_it_goes_on_and_ends_the_same(tmp_path, monkeypatch, step, loss):
    events, texts = planted(100, n_slots=4)
    path = tmp_path / "half.safetensors"

    def fit(**options):
        aligner = Aligner(**SMALL | {"n_steps": 60, "n_slots": 4, "loss": loss})
        return aligner.fit(events, texts, **options)

    whole = fit()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step)
        fit(checkpoint=path)
    assert path.exists() == (step >= 2)  # one is written every two steps
    again = fit(checkpoint=path)
    assert not path.exists()
    assert again.history_ == whole.history_ and again.best_step_ == whole.best_step_
    assert again.logit_scale_ == whole.logit_scale_
    np.testing.assert_array_equal(again.transform_events(events), whole.transform_events(events))
    np.testing.assert_array_equal(again.transform_texts(texts), whole.transform_texts(texts))


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    events, texts = planted(60)
    path = tmp_path / "half.safetensors"
    options = SMALL | {"n_steps": 30}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 5)
        Aligner(**options).fit(events, texts, checkpoint=path)
    before = path.read_bytes()
    for parameters, data in ((options | {"seed": 1}, (events, texts)),
                             (options | {"learning_rate": 1e-3}, (events, texts)),
                             (options, (events, texts[::-1]))):
        with pytest.raises(ValueError, match="other parameters or data"):
            Aligner(**parameters).fit(*data, checkpoint=path)
    assert path.read_bytes() == before
    Aligner(**options | {"progress": True}).fit(events, texts, checkpoint=path)  # the same one


# -- sizes and losses -----------------------------------------------------------------------------


def test_training_stops_early_when_the_score_gets_no_better():
    rng = np.random.default_rng(3)
    events, texts = rng.normal(size=(2, 80, 6))  # nothing to learn
    aligner = Aligner(**SMALL | {"n_steps": 900}).fit(events, texts)
    last = aligner.history_[-1][0]
    assert last < 900 and last == aligner.best_step_ + 300
    whole = Aligner(**SMALL | {"n_steps": 90}).fit(events, texts, validation_fraction=0)
    assert whole.history_[-1][0] == whole.best_step_ == 90


def test_the_sigmoid_loss_recovers_a_planted_truth_too():
    events, texts = planted(400, seed=1)
    aligner = Aligner(**SMALL | {"loss": "siglip", "n_steps": 300}).fit(*planted(1000))
    assert recall(aligner, events, texts) > 0.6
    with pytest.raises(ValueError, match="infonce, siglip"):
        Aligner(**SMALL | {"loss": "hinge"}).fit(events, texts)
