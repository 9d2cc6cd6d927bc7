//! Reads an instruction and finds everything that is wrong at once.
