"""What apps of pictures share: degradations, measures of likeness, and what belongs to them."""
