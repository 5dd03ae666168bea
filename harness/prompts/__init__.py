"""Text only: grammars, lexicon, perturbations. No torch."""
