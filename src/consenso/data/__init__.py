"""data: load, deduplicate, sample, split, and guard against leakage."""

from consenso.data.catalog import CatalogEntry, catalog_entry, catalog_names, find_entry, list_catalog
from consenso.data.duplicates import find_duplicates
from consenso.data.folding import Folds, make_folds
from consenso.data.leakage import find_leaks
from consenso.data.loading import Loaded, load_dataset, read_dataset
from consenso.data.settings import ColumnMap, DataSettings, LabelEntry
from consenso.data.splitting import schema_of

__all__ = [
    "CatalogEntry",
    "ColumnMap",
    "DataSettings",
    "Folds",
    "LabelEntry",
    "Loaded",
    "catalog_entry",
    "catalog_names",
    "find_duplicates",
    "find_entry",
    "find_leaks",
    "list_catalog",
    "load_dataset",
    "make_folds",
    "read_dataset",
    "schema_of",
]
