"""How good is it? Reconstruction, calibration, retrieval, regression, classification, novelty.

Each evaluator takes arrays (or a model and a population with known truth) and returns a frozen
result with numbers, bootstrap uncertainties over sources and the chance or baseline values beside
them. ``print(result)`` shows a table; ``result.to_table()`` returns it.
"""

import importlib

_HOMES = {
    "reconstruction": "_reconstruction",
    "ReconstructionResult": "_reconstruction",
    "calibration": "_calibration",
    "quantile_calibration": "_calibration",
    "crps": "_calibration",
    "autodecoder_calibration": "_autodecoder_calibration",
    "CalibrationResult": "_calibration",
    "double_thinning": "_double_thinning",
    "DoubleThinningResult": "_double_thinning",
    "thinning": "_thinning",
    "ThinningResult": "_thinning",
    "plot_coverage": "_figures",
    "plot_sharpness": "_figures",
    "plot_fits": "_figures",
    "plot_reconstruction": "_result_figures",
    "plot_retrieval": "_result_figures",
    "plot_regression": "_result_figures",
    "plot_scores": "_result_figures",
    "plot_labels": "_result_figures",
    "plot_confusion": "_result_figures",
    "plot_class_reliability": "_result_figures",
    "plot_queries": "_result_figures",
    "plot_novelty": "_result_figures",
    "retrieval": "_retrieval",
    "retrieval_baselines": "_retrieval",
    "RetrievalResult": "_retrieval",
    "RetrievalComparison": "_retrieval",
    "RetrievalReport": "_retrieval",
    "fraction_of_ceiling": "_retrieval",
    "lead_over": "_retrieval",
    "linear_maps": "_retrieval",
    "truth_vectors": "_truth_vectors",
    "case_study": "_case_study",
    "CaseStudyResult": "_case_study",
    "regression": "_regression",
    "RegressionResult": "_regression",
    "table_targets": "_regression",
    "CSC_TARGETS": "_regression",
    "label_curve": "_label_curve",
    "LabelCurveResult": "_label_curve",
    "feature_sets": "_feature_sets",
    "time_shape": "_time_shape",
    "TimeShapeResult": "_time_shape",
    "classification": "_classification",
    "ClassificationResult": "_classification",
    "class_probabilities": "_class_probabilities",
    "ClassProbabilitiesResult": "_class_probabilities",
    "queries": "_queries",
    "plain_queries": "_queries",
    "QueriesResult": "_queries",
    "instruments": "_instruments",
    "InstrumentsResult": "_instruments",
    "novelty": "_novelty",
    "NoveltyResult": "_novelty",
    "artefacts": "_artefacts",
    "ArtefactsResult": "_artefacts",
    "interpretation": "_interpretation",
    "InterpretationResult": "_interpretation",
    "plot_reliability": "_interpretation",
    "changes": "_changes",
    "ChangesResult": "_changes",
    "leakage": "_leakage",
    "masked": "_leakage",
    "LeakageResult": "_leakage",
    "domain_sense": "_domain_sense",
    "domain_sentences": "_domain_sense",
    "DomainSenseResult": "_domain_sense",
    "cost": "_cost",
    "CostResult": "_cost",
    "Estimate": "_report",
    "Report": "_report",
    "bootstrap": "_report",
    "Comparison": "_report",
}
# The implementing modules are private: a module named like its function would replace the
# function on this package as soon as anything imported it.

__all__ = [*_HOMES, "rivals"]


def __getattr__(name):
    if name == "rivals":
        return importlib.import_module(".rivals", __name__)
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
