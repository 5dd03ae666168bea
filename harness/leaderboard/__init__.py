"""Submissions of audited models, their verification, and the static site that shows them.

A track (`tracks`) fixes suite, plan and truth. A submission (`submission`) is a folder that
`pack` writes from a run; `verification` recomputes it from its counts, `spot_check` reruns a
part of it, `flags` remembers what came out, `board` orders the rows and `site` shows them.
"""
