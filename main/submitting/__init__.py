"""Submissions to the test servers of AGORA and BEDLAM."""
