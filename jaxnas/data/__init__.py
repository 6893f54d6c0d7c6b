"""Code as training data: read, deduplicated, split by file, tokenized."""

from jaxnas.data.dataset import Dataset, prepare, windows
from jaxnas.data.deduplicate import Deduplicated, deduplicate
from jaxnas.data.named import read_source
from jaxnas.data.ngram import NgramScore, score_bigram, score_unigram
from jaxnas.data.sources import DataError, Source, SourceFile
from jaxnas.data.split import SPLITS, split, split_of
from jaxnas.data.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    check_room,
    encode,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)
from jaxnas.storage.cache import cache_dir

__all__ = [
    "END_OF_TEXT",
    "END_OF_TEXT_ID",
    "SPLITS",
    "DataError",
    "Dataset",
    "Deduplicated",
    "NgramScore",
    "Source",
    "SourceFile",
    "cache_dir",
    "check_room",
    "deduplicate",
    "encode",
    "load_tokenizer",
    "prepare",
    "read_source",
    "score_bigram",
    "score_unigram",
    "split",
    "split_of",
    "token_bytes",
    "train_tokenizer",
    "windows",
]
