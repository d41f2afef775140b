"""Collaborative anomaly detection (Bai et al., arXiv 2209.09923): the library behind the stages.

Scores are log likelihood ratios in nats everywhere: HIGH = common user, LOW = fresh (anomalous).
"""
