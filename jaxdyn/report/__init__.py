"""Stage 7 of 7: figures and tables of a results store. They read the store and never compute a measure or a null."""
