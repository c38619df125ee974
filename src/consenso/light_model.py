"""The light models: TF-IDF features and logistic regression; shared by annotate, consensus and finetune."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def count_terms(texts: Sequence[str]) -> Any:
    """Return a sparse matrix (n texts × terms) of word 1- and 2-gram counts over all terms of these texts.

    Counting is the slow half of TF-IDF and learns nothing, so it is done once; `tfidf_features` then reads the training
    rows only.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    # Every token of \w+ counts, single letters too: "I" and "a" are words, and a text of one letter is not empty.
    counter = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    if not any(any(c.isalnum() for c in text) for text in texts):
        from scipy.sparse import csr_matrix

        return csr_matrix((len(texts), 1), dtype="int64")
    return counter.fit_transform(texts)


def tfidf_features(train_counts: Any, *other_counts: Any) -> tuple[Any, ...]:
    """Return TF-IDF matrices (sublinear, smoothed idf, unit rows) of the training counts and of the others.

    Terms and document frequencies are those of the training rows alone: equal to scikit-learn's
    `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)` fitted on the training texts.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfTransformer

    seen = np.flatnonzero(np.asarray((train_counts > 0).sum(axis=0)).ravel())
    if not seen.size:
        seen = np.array([0])  # training texts without any term: one empty column, so that a model can still be fitted
    weighing = TfidfTransformer(sublinear_tf=True).fit(train_counts[:, seen])
    return tuple(weighing.transform(counts[:, seen]) for counts in (train_counts, *other_counts))


def word_features(texts: Sequence[str]) -> Any:
    """Return TF-IDF (n × terms) of words without English stop words, at least two texts per term, sublinear, unit rows.

    None where no word stands in two texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(stop_words="english", min_df=2, sublinear_tf=True).fit_transform(texts)
    except ValueError:  # an empty vocabulary, or no term left
        return None


def linear_model(
    features: Any, codes: np.ndarray, *, C: float = 1.0, weights: np.ndarray | None = None, start: Any = None
) -> Any:
    """Return a fitted scikit-learn LogisticRegression (L2, lbfgs).

    `codes`: class positions; `weights`: one per row (a text drawn m times weighs m); `start`: a model fitted on the
    same rows with another C, from whose coefficients the search begins (it is changed and returned).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = start if start is not None else LogisticRegression(max_iter=1000, warm_start=True)
    model.set_params(C=C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # n_iter_ == max_iter tells it; callers may report that
        return model.fit(features, codes, sample_weight=weights)


def class_probabilities(model: Any, features: Any, n_classes: int) -> np.ndarray:
    """Return probabilities, shape (n, n_classes), with 0 for the classes that the model has not seen."""
    import numpy as np

    found = np.zeros((features.shape[0], n_classes))
    found[:, model.classes_] = model.predict_proba(features)
    return found


def text_classifier(texts: Sequence[str], codes: np.ndarray, n_classes: int, *, C: float = 10.0) -> Any:
    """Return a function from texts to class probabilities, shape (n, n_classes): TF-IDF and logistic regression.

    `codes`: class positions of the training texts; classes without a text get probability 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 1))
        features = vectorizer.fit_transform([f"{text} " for text in texts])
    model = linear_model(features, codes, C=C)
    return lambda others: class_probabilities(model, vectorizer.transform(list(others)), n_classes)


def out_of_fold(
    words: np.ndarray, codes: np.ndarray, n_classes: int, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Return class probabilities of each text, (n, n_classes), by a `text_classifier` that has not seen it.

    `words`: the texts, object array; `codes`: class positions. Folds are stratified by shuffled rank in class.
    """
    import numpy as np

    order = np.lexsort((rng.random(len(codes)), codes))
    fold = np.empty(len(codes), dtype=int)
    fold[order] = np.arange(len(codes)) % folds
    found = np.zeros((len(codes), n_classes))
    for number in range(folds):
        seen, held = fold != number, fold == number
        if len(set(codes[seen])) < 2:
            found[held] = np.bincount(codes[seen], minlength=n_classes) / max(1, seen.sum())
        else:
            found[held] = text_classifier(list(words[seen]), codes[seen], n_classes)(words[held])
    return found
