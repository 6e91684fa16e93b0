"""What every room of the house uses. Imports none of them."""
