"""How good estimates are: benchmarks, scores of results, submissions to test servers.

metrics.py     what is measured, and by which protocol
benchmark.py   one dataset through one network, by its own boxes or those of a detector
worst.py       the samples with the largest errors, and their pictures
run.py         what `main.test` runs: benchmarks of one network, their files and tables
scoring.py     what `main.score` runs: a result of inference against the truth of its video
servers.py     what the test servers of AGORA and BEDLAM take, and the check of it
submission.py  what `main.submit` runs: a test split, estimated and zipped
"""
