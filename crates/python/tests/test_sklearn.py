"""The estimator of scikit-learn."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from conftest import BACKBONE
from flawtune.sklearn import FlawDetector


def data(plate):
    good = sorted((plate / "train/good").glob("*.png")) + sorted((plate / "test/good").glob("*.png"))
    bad = sorted((plate / "test/stain").glob("*.png"))
    return [str(path) for path in good + bad], np.array([1] * len(good) + [-1] * len(bad))


def test_it_is_an_outlier_detector(plate):
    images, labels = data(plate)
    model = FlawDetector(**BACKBONE).fit([i for i, label in zip(images, labels) if label == 1])
    scores, decisions, verdicts = model.score_samples(images), model.decision_function(images), model.predict(images)
    assert scores.shape == decisions.shape == verdicts.shape == labels.shape
    assert np.array_equal(decisions, scores - model.offset_)
    assert np.array_equal(verdicts == 1, decisions > 0)
    assert roc_auc_score(labels == 1, scores) == 1.0
    assert model.threshold_ == -model.offset_
    taught = FlawDetector(**BACKBONE).fit(np.array(images), labels)
    assert not np.array_equal(taught.score_samples(images), scores)
    with pytest.raises(ValueError, match="hint:"):
        FlawDetector(**BACKBONE).fit(images, np.where(labels == 1, 0, 1))
    with pytest.raises(ValueError, match="shape"):
        FlawDetector(**BACKBONE).fit(images, labels[:3])


def test_pipelines_and_searches(plate):
    images, labels = data(plate)
    pipeline = Pipeline([("same", FunctionTransformer()), ("flaws", FlawDetector(**BACKBONE))])
    sizes = {"flaws__image_size": [64, 96]}
    search = GridSearchCV(pipeline, sizes, scoring="roc_auc", cv=StratifiedKFold(2), error_score="raise")
    search.fit(images, labels)
    assert search.best_params_["flaws__image_size"] in (64, 96)
    assert search.best_score_ > 0.9
    assert search.predict(images).shape == labels.shape


def test_parameters(plate):
    model = FlawDetector(seed=3, **BACKBONE)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(seed=4).seed == 4
    with pytest.raises(NotFittedError):
        model.predict(data(plate)[0])


def test_checks_of_scikit_learn():
    """`check_estimator` feeds tables of numbers; of an estimator of images it runs what needs none, and says that it leaves out the rest."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        results = estimator_checks.check_estimator(FlawDetector(), on_fail=None)
    assert results and {result["status"] for result in results} == {"passed"}
    assert any("Can't test estimator FlawDetector" in str(warning.message) for warning in said)


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_repr",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_without_data(name):
    """Those of the checks that it leaves out which look at no data."""
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    check("FlawDetector", FlawDetector())
