"""The detector for the rows of groups, with the manners of scikit-learn (docs/detector.md)."""

from pipeline.estimator.detector import CollaborativeAnomalyDetector

__all__ = ["CollaborativeAnomalyDetector"]
