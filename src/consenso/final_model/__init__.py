"""final_model: one classifier to use, on the labels of the user's choice, saved with its card."""

from consenso.final_model.making import Trained as Trained
from consenso.final_model.making import train_model as train_model
from consenso.final_model.pushing import push_model as push_model
