"""The study of the source paper with the null ladder to the top: which null first explains each of its claims.

`claims.json` fixes, before any run, one primary statistic a claim, the margin within which a null counts as explaining
it, and its ladder; `statistics.py` computes the numbers, `conventions.py` lists the other ways to compute them,
`ladder.py` sets them beside their nulls, `verdict.py` judges, `survival.py` says which verdicts survive, `run.py` does
all of it into one folder, `trajectory.py` at every checkpoint of a training run.
"""

from .run import read_study, study
from .settings import StudySettings
from .trajectory import Checkpoint, trajectory

__all__ = ["Checkpoint", "StudySettings", "read_study", "study", "trajectory"]
