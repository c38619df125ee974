"""compare: guards, statistics, verdict."""

from consenso.compare.comparing import compare_arms as compare_arms
from consenso.compare.contrasts import CONTRASTS as CONTRASTS
from consenso.compare.contrasts import Contrast as Contrast
from consenso.compare.guards import CONSEQUENCES as CONSEQUENCES
from consenso.compare.guards import GUARDS as GUARDS
from consenso.compare.guards import check_guards as check_guards
from consenso.compare.guards import explain as explain
from consenso.compare.metrics import METRIC_NAMES as METRIC_NAMES
from consenso.compare.metrics import METRICS as METRICS
from consenso.compare.paired import TwoWay as TwoWay
from consenso.compare.paired import crossed_bootstrap as crossed_bootstrap
from consenso.compare.paired import two_way as two_way
from consenso.compare.scores import score_runs as score_runs
from consenso.compare.settings import CompareSettings as CompareSettings
from consenso.compare.settings import ContrastSettings as ContrastSettings
from consenso.compare.verdict import VERDICTS as VERDICTS
from consenso.compare.verdict import exit_code as exit_code
from consenso.intervals import wilson as wilson
