"""predict: label any number of texts with a saved classifier."""

from consenso.predict.predicting import Predicted, predict_file, predict_texts
from consenso.predict.settings import PredictSettings

__all__ = ["PredictSettings", "Predicted", "predict_file", "predict_texts"]
