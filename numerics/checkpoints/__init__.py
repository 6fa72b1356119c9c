"""Checkpoints of any size and kind: folders of shards, quantized by rules, resumed, and shared by ranks."""

from numerics.checkpoints.deciding import Decision, Request, decide
from numerics.checkpoints.job import JobReport, quantize
from numerics.checkpoints.source import Source

__all__ = ["Decision", "JobReport", "Request", "Source", "decide", "quantize"]
