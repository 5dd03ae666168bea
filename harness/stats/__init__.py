"""From counts to relative Dice changes with intervals. No torch."""
