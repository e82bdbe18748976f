"""Accuracy of estimates: benchmarks, scores of results, submissions to test servers.

metrics.py     metrics and protocols
benchmark.py   one dataset through one network, with its own boxes or those of a detector
worst.py       the samples with the largest errors, and pictures of them
run.py         `main.test`: benchmarks of one network, result files and tables
truth.py       ground truth of clips: HumanData, EMDB, RICH
scoring.py     `main.score`: a result of inference against the truth of its video
servers.py     formats of the test servers of AGORA and BEDLAM, and checks of submissions
submission.py  `main.submit`: estimates for a test split, written to a zip
"""
